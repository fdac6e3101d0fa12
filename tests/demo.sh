#!/usr/bin/env bash
# Makes a disk with an EFI partition and NTFS on it, exports it, and lets programs that share nothing
# with ours check the image. Everything lands in target/demo; no root is needed.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly DESK=target/demo
readonly DISK=$DESK/windows-disk.raw IMAGE=$DESK/windows-disk.vhdx BACK=$DESK/back-to-raw.raw

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() {
    printf '  $ %s\n' "$*"
    "$@" 2>&1 | sed 's/^/    /'
}

say "1. Building the program"
cargo build --release --locked --quiet --bin ce-agent
cargo build --release --locked --quiet -p ce-tests --bin make-disk
rm -rf "$DESK"
mkdir -p "$DESK"
agent=target/release/ce-agent

say "2. A disk like a Windows machine's: GPT, EFI system partition, NTFS with 320 MiB of files"
run target/release/make-disk "$DISK" --size 1024 --files 320
run sgdisk --print "$DISK"

say "3. What ce-agent sees on it"
run "$agent" inspect "$DISK"

say "4. Exporting it to VHDX, with the MD5 of its content"
run "$agent" export "$DISK" --to "$IMAGE" --hash | tee "$DESK/export.txt"
reported=$(sed -n 's/^ *md5 *\([0-9a-f]\{32\}\)$/\1/p' "$DESK/export.txt")

say "5. The image, checked by qemu"
run qemu-img info -f vhdx "$IMAGE"
run qemu-img check -f vhdx "$IMAGE"
run qemu-img compare -f raw -F vhdx "$DISK" "$IMAGE"

say "6. Its content, converted back by qemu and hashed by md5sum"
run qemu-img convert -f vhdx -O raw "$IMAGE" "$BACK"
independent=$(md5sum <"$BACK" | cut -d ' ' -f 1)
reread=$("$agent" hash "$IMAGE")
original=$(md5sum <"$DISK" | cut -d ' ' -f 1)
rm -f "$BACK"

say "Summary"
verdict="all four agree"
for md5 in "$reread" "$original" "$independent"; do
    [ "$md5" = "$reported" ] || verdict="THEY DIFFER"
done
cat <<SUMMARY
  disk     $DISK   $(stat -c %s "$DISK") bytes
  image    $IMAGE  $(stat -c %s "$IMAGE") bytes
  MD5 by ce-agent, of the disk while exporting  $reported
  MD5 by ce-agent, of the image                 $reread
  MD5 by md5sum, of the disk                    $original
  MD5 by qemu-img and md5sum, of the image      $independent
  => $verdict; qemu-img check and compare found nothing wrong
SUMMARY
[ "$verdict" = "all four agree" ]

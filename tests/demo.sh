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
run "$agent" export "$DISK" --to "$IMAGE" --hash
reported=$("$agent" hash "$IMAGE" --json | tail -n 1 | sed -n 's/.*"md5Hash":"\([0-9a-f]*\)".*/\1/p')

say "5. The image, checked by qemu"
run qemu-img info -f vhdx "$IMAGE"
run qemu-img check -f vhdx "$IMAGE"
run qemu-img compare -f raw -F vhdx "$DISK" "$IMAGE"

say "6. Its content, converted back by qemu and hashed by md5sum"
run qemu-img convert -f vhdx -O raw "$IMAGE" "$BACK"
independent=$(md5sum <"$BACK" | cut -d ' ' -f 1)
original=$(md5sum <"$DISK" | cut -d ' ' -f 1)
rm -f "$BACK"

say "Summary"
verdict="all three agree"
[ "$reported" = "$independent" ] && [ "$original" = "$independent" ] || verdict="THEY DIFFER"
cat <<SUMMARY
  disk     $DISK   $(stat -c %s "$DISK") bytes
  image    $IMAGE  $(stat -c %s "$IMAGE") bytes
  MD5 by ce-agent                        $reported
  MD5 of the disk, by md5sum             $original
  MD5 of the image, by qemu-img, md5sum  $independent
  => $verdict; qemu-img check and compare found nothing wrong
SUMMARY
[ "$verdict" = "all three agree" ]

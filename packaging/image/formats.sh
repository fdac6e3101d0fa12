#!/usr/bin/env bash
# Makes of ce.raw what each platform takes in, of ce.efi an ISO, and checksums of all.
#
#   formats.sh --agent FILE --out FOLDER
#
# FOLDER holds what build.sh left there. --agent writes the VHDs. The same input gives the same bytes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
agent="" out=""

main() {
    while [ $# -gt 0 ]; do
        case "$1" in
            --agent) agent=$(realpath "$2") ;;
            --out) out=$(realpath "$2") ;;
            *) usage "$1 is no option" ;;
        esac
        shift 2
    done
    if [ ! -x "$agent" ] || [ ! -f "$out/ce.raw" ]; then usage "--agent and --out with a ce.raw are needed"; fi
    cd "$here/../.."
    . packaging/image/lib.sh
    PATH=$PATH:/usr/sbin:/sbin
    need gzip qemu-img sgdisk sha256sum tar xorriso
    export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C
    SOURCE_DATE_EPOCH=$(build_time)
    umask 022
    work=$(mktemp -d "$out/.work.XXXXXX")
    trap 'rm -rf "$work"' EXIT

    qcow2
    fixed_vhd
    dynamic_vhd
    vmdk
    ova
    gcp
    iso
    for file in "$work"/ce*; do mv "$file" "$out/"; done
    (cd "$out" && sha256sum -- ce.* ce-* packages.tsv >.SHA256SUMS && mv .SHA256SUMS SHA256SUMS)
}

usage() {
    echo "image: $1" >&2
    sed -n 's/^#   \(formats.sh.*\)/usage: \1/p' "$0" >&2
    exit 2
}

# AHV, and anything with KVM.
qcow2() {
    qemu-img convert -f raw -O qcow2 -c "$out/ce.raw" "$work/ce.qcow2"
}

# Azure: fixed, of whole MiB. qemu-img would put the time of day and a random id into the footer.
fixed_vhd() {
    "$agent" export "$out/ce.raw" --to "$work/ce-azure.vhd" --format vhd --quiet >/dev/null
}

# XenServer: dynamic. The footer, which is there twice, has a time at 24 and an id at 68 (VHD Image Format
# Specification, "Hard Disk Footer Format"); the checksum is over the rest.
dynamic_vhd() {
    local file=$work/ce-xenserver.vhd at size
    qemu-img convert -f raw -O vpc -o subformat=dynamic,force_size=on "$out/ce.raw" "$file"
    size=$(stat -c %s "$file")
    for at in 0 $((size - 512)); do
        write_at "$file" $((at + 24)) '\0\0\0\0'
        write_at "$file" $((at + 64)) '\0\0\0\0'
        write_at "$file" $((at + 68)) '\xce\x0b\0\x07\x1a\x6e\x4d\x15\x8b\0\x0c\xe0\0\xd1\x5c\x02'
        write_at "$file" $((at + 64)) "$(footer_checksum "$file" "$at")"
    done
}

# The complement of the sum of the footer's bytes, as an argument for printf.
footer_checksum() {
    local sum
    sum=$(od -An -v -tu1 -j"$2" -N512 "$1" | awk '{ for (i = 1; i <= NF; i++) sum += $i } END { print sum }')
    printf '%08x' $((~sum & 0xffffffff)) | sed 's/../\\x&/g'
}

write_at() {
    # The third argument is a format on purpose: it holds the bytes.
    # shellcheck disable=SC2059
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# vSphere and AWS. qemu-img draws the content id of the descriptor by lot.
vmdk() {
    qemu-img convert -f raw -O vmdk -o subformat=streamOptimized,adapter_type=lsilogic "$out/ce.raw" "$work/ce.vmdk"
    local at
    at=$(grep -abo -m1 'CID=[0-9a-f]\{8\}' "$work/ce.vmdk" | head -n 1)
    [ -n "$at" ] || fail "the VMDK has no content id"
    write_at "$work/ce.vmdk" "${at%%:*}" 'CID=ce0b0007'
}

# The machine that goes with it, for vSphere: OVF 1.1 with the manifest of DSP0243, 5.1.
ova() {
    local capacity size
    capacity=$(stat -c %s "$out/ce.raw")
    size=$(stat -c %s "$work/ce.vmdk")
    sed -e "s/@CAPACITY@/$capacity/" -e "s/@SIZE@/$size/" "$here/ce.ovf" >"$work/ce.ovf"
    (cd "$work" && for file in ce.ovf ce.vmdk; do
        echo "SHA256($file)= $(sha256sum "$file" | cut -d ' ' -f 1)"
    done >ce.mf)
    # The description comes first.
    tar --create --format=ustar --owner=0 --group=0 --numeric-owner --mode=644 \
        --mtime="@$SOURCE_DATE_EPOCH" --directory="$work" --file="$work/ce.ova" ce.ovf ce.mf ce.vmdk
    rm "$work/ce.ovf" "$work/ce.mf"
}

# Google Cloud: disk.raw of whole GiB in an archive of the old GNU form.
gcp() {
    local folder=$work/gcp
    mkdir "$folder"
    cp --sparse=always "$out/ce.raw" "$folder/disk.raw"
    truncate -s 1G "$folder/disk.raw"
    sgdisk --move-second-header "$folder/disk.raw" >/dev/null
    touch -d "@$SOURCE_DATE_EPOCH" "$folder/disk.raw"
    tar --create --format=oldgnu --sparse --owner=0 --group=0 --numeric-owner --mode=644 \
        --directory="$folder" --file=- disk.raw | gzip -9n >"$work/ce-gcp.tar.gz"
    rm -r "$folder"
}

# A CD that UEFI starts, with the same EFI system partition.
iso() {
    local folder=$work/iso start length
    mkdir "$folder"
    read -r start length < <(sgdisk --info=1 "$out/ce.raw" |
        awk '/^First sector/ { first = $3 } /^Last sector/ { print first, $3 - first + 1 }')
    dd if="$out/ce.raw" of="$folder/esp.img" bs=512 skip="$start" count="$length" status=none
    touch -d "@$SOURCE_DATE_EPOCH" "$folder/esp.img" "$folder"
    xorriso -as mkisofs -quiet -volid CE -o "$work/ce.iso" -e esp.img -no-emul-boot "$folder" 2>/dev/null
    rm -r "$folder"
}

main "$@"

#!/usr/bin/env bash
# Builds the image of the Compositing Engine: a Linux that lives in memory, with ce-init as process 1 and
# ce-agent, in one file that UEFI starts, on a disk. No root, no mounts, no loop devices.
#
#   build.sh --agent FILE --init FILE --out FOLDER [--config FILE] [--command-line TEXT] [--level 1..19]
#
# leaves in FOLDER: vmlinuz, initrd, ce.efi (both and the command line, for UEFI), ce.raw (the disk), and
# packages.tsv (the Debian packages that are in it). The same input gives the same bytes.
#
# --config puts a configuration of the agent into the image; --level is zstd's.
set -euo pipefail
# What fails within $( ) fails.
shopt -s inherit_errexit
here=$(cd "$(dirname "$0")" && pwd)
agent="" init="" out="" config="" level=19
# Of Debian's, what ce-agent runs: to make a file system on a scratch disk, to change recovery environments.
TOOLS=(/usr/sbin/mke2fs /usr/bin/wimlib-imagex)
command_line="console=ttyS0,115200 console=tty0 loglevel=4 panic=30"

main() {
    arguments "$@"
    cd "$here/../.."
    . packaging/image/lib.sh
    PATH=$PATH:/usr/sbin:/sbin
    need cpio depmod dpkg-deb dpkg-query ldd mcopy mke2fs mkfs.vfat objcopy objdump sgdisk strip wimlib-imagex xz zstd
    export SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C
    SOURCE_DATE_EPOCH=$(build_time)
    umask 022

    local kernel
    kernel=$(unpack_kernel)
    mkdir -p "$out"
    work=$(mktemp -d "$out/.work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    stage_system
    stage_programs
    stage_modules "$kernel"
    cp "$kernel"/boot/vmlinuz-* "$work/vmlinuz"
    pack_initrd
    link_for_uefi
    make_disk
    list_packages
    # Whoever sees a file sees a whole one.
    for file in vmlinuz initrd ce.efi ce.raw packages.tsv; do mv "$work/$file" "$out/$file"; done
}

arguments() {
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || usage "$1 needs a value"
        case "$1" in
            --agent) agent=$(realpath "$2") ;;
            --init) init=$(realpath "$2") ;;
            --out) mkdir -p "$2" && out=$(realpath "$2") ;;
            --config) config=$(realpath "$2") ;;
            --command-line) command_line="$command_line $2" ;;
            --level) level=$2 ;;
            *) usage "$1 is no option" ;;
        esac
        shift 2
    done
    if [ ! -f "$agent" ] || [ ! -f "$init" ] || [ -z "$out" ]; then usage "--agent, --init and --out are needed"; fi
    [ -z "$config" ] || [ -f "$config" ] || usage "$config is not there"
}

usage() {
    echo "image: $1" >&2
    sed -n 's/^#   \(build.sh.*\)/usage: \1/p' "$0" >&2
    exit 2
}

# Unpacks the kernel's package, once, and makes the tables of all its modules; says where.
unpack_kernel() {
    local name package folder
    name=$(kernel_package)
    package=$(package_file "$name")
    folder=$CACHE/$(basename "$package" .deb)
    if [ ! -d "$folder" ]; then
        rm -rf "$folder.new"
        mkdir -p "$folder.new"
        # Of a release with merged /usr modules lie in /usr/lib, of others in /lib.
        dpkg-deb --fsys-tarfile "$package" |
            tar -x -C "$folder.new" --wildcards './boot/vmlinuz-*' '*lib/modules/*'
        if [ -d "$folder.new/usr/lib/modules" ]; then mv "$folder.new/usr/lib" "$folder.new/lib"; fi
        depmod -b "$folder.new" "${name#linux-image-}"
        mv "$folder.new" "$folder"
    fi
    realpath "$folder"
}

# The folders and files of the system.
stage_system() {
    root=$work/root
    mkdir -p "$root"/{dev,etc/{ce-agent,ce-init,samba},proc,run,sys,tmp,usr/{bin,lib,lib64,sbin},var/lib}
    mkdir -p "$root"/var/{cache,lib,log}/samba
    ln -s usr/bin usr/lib usr/lib64 usr/sbin "$root/"
    ln -s ../run "$root/var/run"
    # Names under which the kernel runs it.
    ln -s /init "$root/usr/sbin/modprobe"
    ln -s /init "$root/usr/sbin/poweroff"
    ln -s /init "$root/usr/sbin/reboot"
    echo "$SOURCE_DATE_EPOCH" >"$root/etc/ce-init/built"
    echo 'root:x:0:0:root:/:/nonexistent' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    echo '127.0.0.1 localhost' >"$root/etc/hosts"
    printf 'hosts: files dns\npasswd: files\ngroup: files\n' >"$root/etc/nsswitch.conf"
    # libsmbclient looks for it, and takes its own defaults.
    printf '[global]\n' >"$root/etc/samba/smb.conf"
    if [ -n "$config" ]; then install -m 600 "$config" "$root/etc/ce-agent/config.toml"; fi
}

# The two programs and those that they run, and the libraries that all of them are linked with, from this machine.
stage_programs() {
    strip --strip-all -o "$root/init" "$init"
    strip --strip-all -o "$root/usr/bin/ce-agent" "$agent"
    chmod 755 "$root/init" "$root/usr/bin/ce-agent"
    local tool library target
    for tool in "${TOOLS[@]}"; do install -m 755 "$tool" "$root$tool"; done
    ldd "$agent" "$init" "${TOOLS[@]}" | awk '$2 == "=>" { print $3 } $1 ~ /^\// && $1 !~ /:$/ { print $1 }' | sort -u |
        grep '^/' >"$work/libraries"
    if ldd "$agent" "$init" "${TOOLS[@]}" | grep -q 'not found'; then
        ldd "$agent" "$init" "${TOOLS[@]}" | grep 'not found' >&2
        fail "libraries of the programs are missing"
    fi
    while read -r library; do
        # A name in /lib is one in /usr/lib.
        target=$root/usr${library#/usr}
        mkdir -p "$(dirname "$target")"
        install -m 755 "$(realpath "$library")" "$target"
    done <"$work/libraries"
}

# The modules of modules.txt with all that they need, as they are: their signatures are their last bytes.
stage_modules() {
    local release modules name file
    release=$(basename "$1"/lib/modules/*)
    modules=$1/lib/modules/$release
    local folder=$root/usr/lib/modules/$release
    mkdir -p "$folder"
    cp "$modules"/modules.{builtin,builtin.modinfo,order} "$folder/"
    sed 's/#.*//' "$here/modules.txt" | tr -s ' \n' '\n' | sed '/^$/d' >"$work/modules"
    while read -r name; do
        # Names are the same with - and with _; a line is FILE: WHAT IT NEEDS.
        file=$(awk -F: -v name="${name//-/_}" '
            { own = $1; sub(".*/", "", own); sub("\\.ko.*", "", own); gsub("-", "_", own) }
            own == name { print $1, $2; found = 1 } END { exit !found }' "$modules/modules.dep") ||
            grep -q "/\(${name//_/-}\|${name//-/_}\)\.ko" "$modules/modules.builtin" ||
            fail "the kernel has no module $name, which modules.txt names"
        # What is built in needs no file.
        tr -s ' ' '\n' <<<"$file" | sed '/^$/d'
    done <"$work/modules" | sort -u >"$work/files"
    while read -r file; do
        mkdir -p "$folder/$(dirname "$file")"
        case "$file" in
            *.ko) cp "$modules/$file" "$folder/$file" ;;
            *.ko.xz) xz -dc "$modules/$file" >"$folder/${file%.xz}" ;;
            *) fail "$file is packed in a way that is not known here" ;;
        esac
    done <"$work/files"
    depmod -b "$root/usr" "$release"
    # The tables that process 1 reads, and no others.
    find "$folder" -maxdepth 1 -type f ! -name modules.alias ! -name modules.dep -delete
}

pack_initrd() {
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    (cd "$root" && find . -mindepth 1 -print0 | sort -z |
        cpio --null --create --format=newc --reproducible --owner=+0:+0 --quiet) >"$work/initrd.cpio"
    zstd --quiet -T0 "-$level" --check --rm "$work/initrd.cpio" -o "$work/initrd"
}

# One program for UEFI of stub, kernel, memory image and command line (the Unified Kernel Image of
# https://uapi-group.org/specifications/specs/unified_kernel_image).
link_for_uefi() {
    local stub=$work/stub.efi at address=0 size name
    dpkg-deb --fsys-tarfile "$(package_file "$STUB_PACKAGE")" |
        tar -xO ./usr/lib/systemd/boot/efi/linuxx64.efi.stub >"$stub"
    printf '%s' "$command_line" >"$work/cmdline"
    printf 'ID=ce\nNAME="Compositing Engine"\nVERSION_ID=%s\n' "$(version)" >"$work/os-release"
    # Behind the last section of the stub, each at a new page.
    local -a sections=()
    while read -r size at; do
        if ((16#$at + 16#$size > address)); then address=$((16#$at + 16#$size)); fi
    done < <(objdump -h -w "$stub" | awk '$1 ~ /^[0-9]+$/ { print $3, $4 }')
    for name in osrel:os-release cmdline:cmdline linux:vmlinuz initrd:initrd; do
        address=$(((address + 0xffff) / 0x10000 * 0x10000))
        sections+=(--add-section ".${name%%:*}=$work/${name##*:}"
            --change-section-vma ".${name%%:*}=$(printf '%#x' "$address")")
        address=$((address + $(stat -c %s "$work/${name##*:}")))
    done
    objcopy "${sections[@]}" "$stub" "$work/ce.efi"
    # objcopy writes the time of day into the header (PE/COFF, 3.3.1), and a checksum that nobody needs.
    local header
    header=$(od -An -tu4 -j60 -N4 "$work/ce.efi" | tr -d ' ')
    overwrite "$work/ce.efi" $((header + 8)) 4
    overwrite "$work/ce.efi" $((header + 24 + 64)) 4
}

# Puts zeros over COUNT bytes of a file.
overwrite() {
    dd if=/dev/zero of="$1" bs=1 seek="$2" count="$3" conv=notrunc status=none
}

version() {
    sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1
}

# A GPT with an EFI system partition. By the GUID of the disk the agent knows it as its own
# (disk-ops/src/discover/own.rs).
make_disk() {
    local content mib=1048576 megabytes
    content=$(stat -c %s "$work/ce.efi")
    # FAT32 has at least 65525 clusters, of 512 bytes here; its two tables take a sixty-fourth each.
    megabytes=$(((content + content / 32) / mib + 2))
    if ((megabytes < 34)); then megabytes=34; fi
    truncate -s "${megabytes}M" "$work/esp"
    mkfs.vfat -F 32 -s 1 --invariant -i CE0B0007 -n CE "$work/esp" >/dev/null
    touch -d "@$SOURCE_DATE_EPOCH" "$work/ce.efi"
    mmd -i "$work/esp" ::/EFI ::/EFI/BOOT
    mcopy -m -i "$work/esp" "$work/ce.efi" ::/EFI/BOOT/BOOTX64.EFI
    truncate -s "$((megabytes + 2))M" "$work/ce.raw"
    sgdisk --set-alignment=2048 --disk-guid=CE0B0007-1A6E-4D15-8B00-0CE000D15C00 \
        --new=1:2048:+"${megabytes}M" --typecode=1:ef00 --change-name=1:CE \
        --partition-guid=1:CE0B0007-1A6E-4D15-8B00-0CE000D15C01 "$work/ce.raw" >/dev/null
    dd if="$work/esp" of="$work/ce.raw" bs=1M seek=1 conv=notrunc,sparse status=none
}

# Package, version, architecture, and what of it is there.
list_packages() {
    local package library
    # shellcheck disable=SC2016 # The names are for dpkg.
    local fields='${Package}\t${Version}\t${Architecture}\n'
    {
        for package in "$(kernel_package)" "$STUB_PACKAGE"; do
            dpkg-deb --show --showformat "$fields" "$(package_file "$package")"
        done
        { printf "%s\n" "${TOOLS[@]}" && cat "$work/libraries"; } | while read -r library; do
            # dpkg knows a file by the name that it was installed with, which may be without /usr.
            dpkg-query --search "$(realpath "$library")" 2>/dev/null ||
                dpkg-query --search "$(realpath "$library" | sed 's|^/usr||')" ||
                fail "$library is of no package"
        done | sed 's/: .*//' | sort -u |
            xargs dpkg-query --show --showformat "$fields"
    } | sort -u >"$work/packages.tsv"
}

main "$@"

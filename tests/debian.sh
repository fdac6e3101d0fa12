#!/usr/bin/env bash
# Makes a plain Debian with systemd for QEMU, once: target/debian/{root.ext4,vmlinuz,initrd.img}. Needs root and a
# network. When it starts it runs run.sh from the disk /dev/vdb, whatever that is.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly SUITE=bookworm
readonly PACKAGES=systemd,systemd-sysv,udev,init-system-helpers,libsmbclient,linux-image-cloud-amd64
readonly FOLDER=target/debian

main() {
    PATH=$PATH:/usr/sbin:/sbin
    if [ -f "$FOLDER/done" ] && [ "$(cat "$FOLDER/done")" = "$SUITE $PACKAGES" ]; then return 0; fi
    [ "$(id -u)" -eq 0 ] || fail "root is needed to make a Debian with its owners and devices"
    rm -rf "$FOLDER"
    mkdir -p "$FOLDER"
    local tree=$FOLDER/tree
    echo "debian: installing $SUITE into $FOLDER (once)"
    mmdebstrap --quiet --variant=minbase --include="$PACKAGES" "$SUITE" "$tree"
    configure "$tree"
    cp "$tree"/boot/vmlinuz-* "$FOLDER/vmlinuz"
    cp "$tree"/boot/initrd.img-* "$FOLDER/initrd.img"
    rm -rf "${tree:?}"/boot/* "${tree:?}"/var/lib/apt/lists/* "${tree:?}"/var/cache/apt/*.bin
    mke2fs -q -t ext4 -d "$tree" "$FOLDER/root.ext4" 1500M
    rm -rf "$tree"
    echo "$SUITE $PACKAGES" >"$FOLDER/done"
}

configure() {
    local tree=$1
    cat >"$tree/etc/systemd/network/80-dhcp.network" <<'END'
[Match]
Name=e*

[Network]
DHCP=yes
END
    cat >"$tree/etc/systemd/system/run.service" <<'END'
[Unit]
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStartPre=/usr/bin/mkdir -p /payload
ExecStartPre=/usr/bin/mount -o ro /dev/vdb /payload
ExecStart=/bin/sh /payload/run.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0

[Install]
WantedBy=multi-user.target
END
    systemctl --root="$tree" --quiet enable systemd-networkd run.service
    # The console is for what run.sh says.
    systemctl --root="$tree" --quiet mask serial-getty@ttyS0.service
}

fail() {
    echo "debian: $*" >&2
    exit 1
}

main

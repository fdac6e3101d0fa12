#!/usr/bin/env bash
# Installs what `make demo` (setup.sh demo), `make deb` (deb), `make test` (test) or `make test-deb` (test-deb) needs, and
# nothing that is there already.
# When all is there it changes nothing and uses no network.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly RUST_MINIMUM=1.95
readonly CARGO_DENY_VERSION=0.20.2
readonly DISSECT_NTFS="dissect.ntfs==3.16 dissect.cstruct==4.7 dissect.util==3.24"

# need | package | what proves it is there: a program, pkg-config:MODULE, python:MODULE or file:FILE
readonly TABLE='
demo | ca-certificates | file:/etc/ssl/certs/ca-certificates.crt
demo | curl            | curl
demo | gcc             | cc
demo | libc6-dev       | file:/usr/include/stdlib.h
demo | pkg-config      | pkg-config
demo | libsmbclient-dev| pkg-config:smbclient
demo | ntfs-3g-dev     | pkg-config:libntfs-3g
demo | qemu-utils      | qemu-img
demo | gdisk           | sgdisk
demo | dosfstools      | mkfs.fat
demo | mtools          | mcopy
demo | ntfs-3g         | mkntfs
deb  | binutils        | strip
deb  | dpkg-dev        | dpkg-shlibdeps
test | ntfs-3g         | ntfscp
test | bzip2           | bunzip2
test | binutils        | objcopy
test | chromium        | chromium
test | cpio            | cpio
test | dnsmasq-base    | dnsmasq
test | e2fsprogs       | mke2fs
test | fdisk           | sfdisk
test | g++             | c++
test | genisoimage     | genisoimage
test | msitools        | msibuild
test | python3         | /usr/bin/python3
test | python3-libvhdi | python:pyvhdi
test | python3-venv    | python:ensurepip
test | iproute2        | tc
test | kmod            | depmod
test | libhivex-bin    | hivexsh
test | libvhdi-utils   | vhdiinfo
test | lintian         | lintian
test | mount           | mount
test | ovmf            | file:/usr/share/OVMF/OVMF_CODE_4M.fd
test | qemu-system-x86 | qemu-system-x86_64
test | reglookup       | reglookup
test | samba           | smbd
test | shellcheck      | shellcheck
test | sleuthkit       | icat
test | smbclient       | smbclient
test | strace          | strace
test | systemd         | systemd-analyze
test | util-linux      | setpriv
test | wimtools        | wimlib-imagex
test | wixl            | wixl
test | xorriso         | xorriso
test | xz-utils        | xz
test | zstd            | zstd
test-deb | mmdebstrap  | mmdebstrap
'

main() {
    local need=${1:-test}
    case "$need" in
        demo | deb | test | test-deb) ;;
        *) fail "setup.sh takes 'demo', 'deb', 'test' or 'test-deb', not '$need'" ;;
    esac
    # Disk tools live in sbin, which is not on every user's PATH.
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/sbin:/sbin"
    export PATH

    install_packages "$need"
    install_rust
    fetch_crates Cargo.toml
    if [ "${need%-deb}" = test ]; then
        if [ -f tests/fuzz/Cargo.toml ]; then fetch_crates tests/fuzz/Cargo.toml; fi
        packaging/image/fetch.sh
        install_cargo_deny
        install_dissect_ntfs
    fi
}

install_packages() {
    local missing
    missing=$(missing_packages "$1")
    # A package of another release (qemu-utils of backports) gives way to what it conflicts with, and
    # is then missing itself.
    for _ in first second; do
        [ -n "$missing" ] || return 0
        install_with_apt "$missing"
        missing=$(missing_packages "$1")
    done
    [ -z "$missing" ] || fail "these packages are installed, but do not hold what is needed from them: $missing"
}

# Installs the packages of one line.
install_with_apt() {
    # The names are separated by blanks on purpose.
    # shellcheck disable=SC2086
    set -- $1
    command -v apt-get >/dev/null ||
        fail "please install what these Debian packages hold, then run this again: $*"
    echo "setup: installing with apt-get: $*"
    as_root apt-get update -qq || fail "apt-get update failed; these packages are missing: $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        fail "apt-get could not install: $*"
}

# The packages of one need whose proof is not there, on one line. Each need includes those before it: demo, deb,
# test, test-deb.
missing_packages() {
    local need package proof missing=""
    while IFS='| ' read -r need package proof; do
        [ -n "$need" ] || continue
        [ "$(rank "$need")" -le "$(rank "$1")" ] || continue
        is_there "$proof" || missing="$missing $package"
    done <<<"$TABLE"
    echo "${missing# }"
}

rank() {
    case "$1" in
        demo) echo 0 ;;
        deb) echo 1 ;;
        test) echo 2 ;;
        test-deb) echo 3 ;;
    esac
}

is_there() {
    case "$1" in
        file:*) [ -e "${1#file:}" ] ;;
        pkg-config:*) command -v pkg-config >/dev/null && pkg-config --exists "${1#pkg-config:}" ;;
        python:*) [ -x /usr/bin/python3 ] && /usr/bin/python3 -c "import ${1#python:}" 2>/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

install_rust() {
    if rust_is_new_enough; then return 0; fi
    echo "setup: cargo $RUST_MINIMUM with rustfmt and clippy is needed; installing the toolchain with rustup"
    if ! command -v rustup >/dev/null; then
        if LC_ALL=C apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [^(]'; then
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq rustup >/dev/null
        else
            curl --proto '=https' --tlsv1.2 -sSf https://static.rust-lang.org/rustup/rustup-init.sh |
                sh -s -- -y -q --profile minimal --default-toolchain none --no-modify-path ||
                fail "rustup could not be installed; see https://rustup.rs"
        fi
    fi
    # A distribution's own cargo may come first on PATH; the proxies of rustup must win.
    hash -r
    rustup toolchain install "$(pinned_toolchain)" --profile minimal --no-self-update -c clippy -c rustfmt
    rust_is_new_enough ||
        fail "the cargo found first on PATH ($(command -v cargo || echo none)) is still older than $RUST_MINIMUM; remove it or put rustup's first"
}

rust_is_new_enough() {
    local version
    # Through rustup these would fetch a missing toolchain; RUSTUP_AUTO_INSTALL=0 leaves that to install_rust.
    version=$(RUSTUP_AUTO_INSTALL=0 cargo --version 2>/dev/null) || return 1
    version=${version#cargo }
    [ "$(printf '%s\n%s\n' "$RUST_MINIMUM" "${version%% *}" | sort -V | head -n 1)" = "$RUST_MINIMUM" ] || return 1
    RUSTUP_AUTO_INSTALL=0 cargo fmt --version >/dev/null 2>&1 && RUSTUP_AUTO_INSTALL=0 cargo clippy --version >/dev/null 2>&1
}

pinned_toolchain() {
    sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml
}

fetch_crates() {
    cargo fetch --quiet --locked --offline --manifest-path "$1" 2>/dev/null ||
        cargo fetch --quiet --locked --manifest-path "$1" ||
        fail "the crates named in $1 could not be downloaded"
}

install_cargo_deny() {
    local root=target/tools
    [ "$("$root/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $CARGO_DENY_VERSION" ] || return 0
    echo "setup: building cargo-deny $CARGO_DENY_VERSION (once, some minutes)"
    cargo install --quiet --locked --root "$root" "cargo-deny@$CARGO_DENY_VERSION"
}

# A reader of NTFS that shares no code with the ones here, in a Python environment of its own.
install_dissect_ntfs() {
    local root=target/tools/python
    [ ! -f "$root/installed" ] || [ "$(cat "$root/installed")" != "$DISSECT_NTFS" ] || return 0
    echo "setup: installing $DISSECT_NTFS"
    /usr/bin/python3 -m venv "$root"
    # The versions are separated by blanks on purpose.
    # shellcheck disable=SC2086
    "$root/bin/pip" install --quiet --disable-pip-version-check $DISSECT_NTFS
    printf '%s' "$DISSECT_NTFS" >"$root/installed"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "root is needed for: $*"
    fi
}

fail() {
    echo "setup: $*" >&2
    exit 1
}

main "$@"

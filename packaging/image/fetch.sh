#!/usr/bin/env bash
# Downloads the kernel and the boot stub of the image from this machine's Debian, by apt, which checks their
# signatures. What is there already stays, unless --newest is said. Nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
. packaging/image/lib.sh

main() {
    local newest=no
    case "${1:-}" in
        --newest) newest=yes ;;
        "") ;;
        *) fail "fetch.sh takes --newest or nothing" ;;
    esac
    if [ "$newest" = no ] && is_complete; then return 0; fi
    # shellcheck source=/dev/null
    [ "$(. /etc/os-release && echo "$ID")" = debian ] ||
        fail "the image is made of Debian's kernel, on Debian: its libraries are those that ce-agent was built with"
    [ "$(dpkg --print-architecture)" = amd64 ] || fail "the image is made on amd64 only"
    need apt-get apt-cache dpkg-deb

    local folder=$CACHE/packages.new
    rm -rf "$folder"
    mkdir -p "$folder"
    local kernel
    kernel=$(apt-cache depends --no-recommends --no-suggests linux-image-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*-amd64\)$/\1/p' | head -n 1)
    [ -n "$kernel" ] || fail "apt knows no linux-image-amd64; run apt-get update"
    echo "$kernel" >"$folder/kernel"
    (cd "$folder" && apt-get download -qq "$kernel" "$STUB_PACKAGE" 2>download.log) || {
        cat "$folder/download.log" >&2
        fail "$kernel and $STUB_PACKAGE can't be downloaded"
    }
    rm -f "$folder/download.log"
    rm -rf "$CACHE/packages"
    mv "$folder" "$CACHE/packages"
}

is_complete() {
    local kernel
    kernel=$(cat "$CACHE/packages/kernel" 2>/dev/null) || return 1
    compgen -G "$CACHE/packages/${kernel}_*.deb" >/dev/null &&
        compgen -G "$CACHE/packages/${STUB_PACKAGE}_*.deb" >/dev/null
}

main "$@"

#!/usr/bin/env bash
# Makes ce-agent.deb of a program and its pages, without root: build.sh PROGRAM PAGES OUTPUT
#
# PAGES is what `cargo run -p ce-agent --example pages` wrote. The same program gives the same package: times are
# SOURCE_DATE_EPOCH, by default that of the last commit.
set -euo pipefail

main() {
    [ $# -eq 3 ] || fail "expected PROGRAM PAGES OUTPUT"
    local program=$1 pages=$2 output=$3 here tree
    here=$(cd "$(dirname "$0")" && pwd)
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct)}
    export SOURCE_DATE_EPOCH
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    tree=$work/tree

    install -D -m 755 "$program" "$tree/usr/bin/ce-agent"
    strip --strip-unneeded "$tree/usr/bin/ce-agent"
    install -D -m 644 "$here/../systemd/ce-agent.service" "$tree/lib/systemd/system/ce-agent.service"
    install -D -m 644 "$here/../systemd/ce-agent.sysusers" "$tree/usr/lib/sysusers.d/ce-agent.conf"
    install -D -m 644 "$here/../systemd/ce-agent.rules" "$tree/lib/udev/rules.d/60-ce-agent.rules"
    install -D -m 644 "$here/config.toml" "$tree/etc/ce-agent/config.toml"
    install_pages "$pages" "$tree/usr/share"
    install_documents "$here" "$tree/usr/share/doc/ce-agent"
    write_control "$here" "$tree"

    find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    mkdir -p "$(dirname "$output")"
    dpkg-deb --root-owner-group --uniform-compression -Zxz --build "$tree" "$output" >/dev/null
}

install_pages() {
    local pages=$1 share=$2 page
    for page in "$pages"/*.1; do
        install -D -m 644 "$page" "$share/man/man1/$(basename "$page")"
    done
    gzip -9n "$share"/man/man1/*.1
    install -D -m 644 "$pages/ce-agent.bash" "$share/bash-completion/completions/ce-agent"
    install -D -m 644 "$pages/_ce-agent" "$share/zsh/vendor-completions/_ce-agent"
    install -D -m 644 "$pages/ce-agent.fish" "$share/fish/vendor_completions.d/ce-agent.fish"
}

install_documents() {
    local here=$1 folder=$2 page
    install -D -m 644 "$here/copyright" "$folder/copyright"
    install -m 644 "$here/../../CHANGELOG.md" "$folder/CHANGELOG.md"
    # What Debian's tools read; CHANGELOG.md is for people.
    {
        echo "ce-agent ($(version "$here")) unstable; urgency=medium"
        printf '\n  * See CHANGELOG.md.gz.\n\n'
        echo " -- $(sed -n 's/^Maintainer: //p' "$here/control")  $(LC_ALL=C date -uR --date="@$SOURCE_DATE_EPOCH")"
    } >"$folder/changelog"
    chmod 644 "$folder/changelog"
    gzip -9n "$folder/CHANGELOG.md" "$folder/changelog"
    for page in daemon errors install prepare publish smb convert-to-uefi drivers; do
        install -m 644 "$here/../../docs/$page.md" "$folder/$page.md"
    done
}

write_control() {
    local here=$1 tree=$2 size architecture depends
    mkdir -p "$tree/DEBIAN" "$work/debian"
    architecture=$(dpkg --print-architecture)
    # dpkg-shlibdeps wants the source package's file, of which it reads nothing that matters here.
    printf 'Source: ce-agent\n\nPackage: ce-agent\nArchitecture: any\n' >"$work/debian/control"
    depends=$(cd "$work" && dpkg-shlibdeps -O -e"$tree/usr/bin/ce-agent" 2>/dev/null)
    depends=${depends#shlibs:Depends=}
    [ -n "$depends" ] || fail "dpkg-shlibdeps names no library that $tree/usr/bin/ce-agent needs"
    size=$(du -sk --apparent-size --exclude=DEBIAN "$tree" | cut -f1)
    sed -e "s/@VERSION@/$(version "$here")/" -e "s/@ARCHITECTURE@/$architecture/" \
        -e "s/@SIZE@/$size/" -e "s/@DEPENDS@/$depends/" "$here/control" >"$tree/DEBIAN/control"
    echo /etc/ce-agent/config.toml >"$tree/DEBIAN/conffiles"
    for script in postinst prerm postrm; do
        install -m 755 "$here/$script" "$tree/DEBIAN/$script"
    done
    (cd "$tree" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) \
        >"$tree/DEBIAN/md5sums"
}

# The version of the workspace; `~` sorts what was built between two releases before the next one.
version() {
    local version
    version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$1/../../Cargo.toml")
    [ -n "$version" ] || fail "Cargo.toml says no version"
    echo "$version"
}

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

main "$@"

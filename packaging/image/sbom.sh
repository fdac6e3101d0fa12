#!/usr/bin/env bash
# Writes what the image is made of to standard output: CycloneDX 1.5 in JSON, with the crates that are linked
# into the two programs and the Debian packages that packages.tsv (see build.sh) lists.
#
#   sbom.sh FOLDER/packages.tsv
set -euo pipefail
packages=$(realpath "${1:?usage: sbom.sh FOLDER/packages.tsv}")
cd "$(dirname "$0")/../.."
. packaging/image/lib.sh
need cargo
export LC_ALL=C TZ=UTC

main() {
    local version
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    printf '{\n  "bomFormat": "CycloneDX",\n  "specVersion": "1.5",\n  "version": 1,\n'
    printf '  "metadata": {\n    "timestamp": "%s",\n' "$(date -d "@$(build_time)" +%Y-%m-%dT%H:%M:%SZ)"
    printf '    "component": {"type": "operating-system", "name": "ce-image", "version": "%s"}\n  },\n' "$version"
    printf '  "components": [\n'
    { crates && debian; } | sed '$!s/$/,/'
    printf '  ]\n}\n'
}

# Without what only runs while the programs are built.
crates() {
    local name version licence
    cargo tree --quiet --locked --offline --package ce-agent --package ce-init --edges normal,no-proc-macro \
        --target x86_64-unknown-linux-gnu --prefix none --no-dedupe --format '{p}|{l}' |
        sed 's/ ([^|]*)//g; s/ (\*)$//; s/ v/|/' | sed '/^$/d' | sort -u |
        while IFS='|' read -r name version licence; do
            component "$name" "$version" "pkg:cargo/$name@$version" "$licence"
        done
}

debian() {
    local name version architecture
    while IFS=$'\t' read -r name version architecture; do
        component "$name" "$version" "pkg:deb/debian/$name@${version//+/%2B}?arch=$architecture" ""
    done <"$packages"
}

# Names, versions and licences of both have no character that JSON would have to escape; who has one is
# refused rather than written wrong.
component() {
    case "$1$2$3$4" in
        *[\"\\]* | *[[:cntrl:]]*) fail "$1 $2: a name that can't be written" ;;
    esac
    printf '    {"type": "library", "name": "%s", "version": "%s", "purl": "%s"' "$1" "$2" "$3"
    if [ -n "$4" ]; then
        # Cargo allows a slash for OR, which SPDX does not.
        printf ', "licenses": [{"expression": "%s"}]' "${4//\// OR }"
    fi
    printf '}\n'
}

main

#!/usr/bin/env bash
# Builds the programs as they are shipped, the image, and all its formats: `make image`.
# With --keep-kernel the kernel that is there is taken, and no network is needed.
set -euo pipefail
cd "$(dirname "$0")/../.."
. packaging/image/lib.sh

case "${1:-}" in
    --keep-kernel) packaging/image/fetch.sh ;;
    "") packaging/image/fetch.sh --newest ;;
    *) fail "make.sh takes --keep-kernel or nothing" ;;
esac
out=$CACHE/out
echo "image: building the programs"
cargo build --quiet --release --locked -p ce-agent -p ce-init
programs=${CARGO_TARGET_DIR:-target}/release
rm -rf "$out"
echo "image: building the image"
packaging/image/build.sh --agent "$programs/ce-agent" --init "$programs/ce-init" --out "$out"
packaging/image/sbom.sh "$out/packages.tsv" >"$out/ce.cdx.json"
echo "image: writing the formats"
packaging/image/formats.sh --agent "$programs/ce-agent" --out "$out"
find "$out" -type f -printf '%12s  %f\n' | sort -k 2

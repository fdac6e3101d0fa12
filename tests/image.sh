#!/usr/bin/env bash
# The tests of the image as it is shipped: builds it in all formats with the kernel that is there, and has UEFI
# start it.
set -euo pipefail
cd "$(dirname "$0")/.."

packaging/image/make.sh --keep-kernel
CE_IMAGE=$PWD/target/image/out CE_AGENT=$PWD/target/release/ce-agent CE_INIT=$PWD/target/release/ce-init \
    cargo test --quiet --locked --workspace --features ce-tests/image --test image_formats -- --nocapture --test-threads=1
echo "test-image: passed"

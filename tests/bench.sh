#!/usr/bin/env bash
# Builds what the benchmark compares, and runs it. Usage: bench.sh FOLDER [options of the bench program].
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$1
shift
cargo build --release --locked --quiet --bin ce-agent
cargo build --release --locked --quiet -p ce-disk --example md5_speed
cargo build --release --locked --quiet -p ce-tests --bin bench --bin commit-folder
mkdir -p "$folder"
CE_AGENT=$PWD/target/release/ce-agent exec target/release/bench --dir "$folder" "$@"

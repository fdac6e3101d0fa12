#!/usr/bin/env bash
# Builds the fuzz targets on the stable toolchain and runs each for some seconds from its seeds.
# Usage: fuzz.sh SECONDS [TARGET...]. What a run finds stays in tests/fuzz/artifacts/TARGET.
set -euo pipefail
cd "$(dirname "$0")/fuzz"

seconds=$1
shift
if [ $# -eq 0 ]; then
    for source in src/bin/*.rs; do
        [ -f "$source" ] || { echo "fuzz: no target in tests/fuzz/src/bin" >&2; exit 1; }
        set -- "$@" "$(basename "$source" .rs)"
    done
fi

# What cargo-fuzz passes, without a sanitizer, which would need nightly. Naming the platform keeps the
# flags away from build scripts and procedural macros.
platform=$(rustc --print host-tuple)
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks" \
    cargo build --quiet --locked --release --target "$platform" --bins

# Runs one target and tells how it went.
run() {
    local target=$1 corpus=corpus/$1 artifacts=artifacts/$1 seeds=seeds/$1 log runs
    mkdir -p "$corpus" "$artifacts"
    local folders=("$corpus")
    [ ! -d "$seeds" ] || folders+=("$seeds")
    log=$artifacts/log
    # A run of nothing is no proof: libFuzzer's own count has to be above zero.
    if ! "target/$platform/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -print_final_stats=1 -artifact_prefix="$artifacts/" "${folders[@]}" >"$log" 2>&1; then
        tail -n 40 "$log"
        echo "fuzz: $target FAILED; the input is in tests/fuzz/$artifacts" >&2
        return 1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    [ "${runs:-0}" -gt 0 ] || { echo "fuzz: $target ran no input" >&2; return 1; }
    echo "fuzz: $target: $runs inputs in $seconds s, nothing found"
}

# A target keeps one processor busy. All are run, even if one finds something.
export platform seconds
export -f run
printf '%s\n' "$@" | xargs -P "$(nproc)" -I {} bash -c 'run {}'

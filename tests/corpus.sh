#!/usr/bin/env bash
# Unpacks the corpus that CE_CORPUS names and runs the tests that read it.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "test-corpus: $*" >&2
    exit 1
}

[ -n "${CE_CORPUS:-}" ] || fail "CE_CORPUS is not set: it names the folder that holds corpus.tar.zst"
archive=$CE_CORPUS/corpus.tar.zst
[ -f "$archive" ] || fail "there is no $archive"
tests/setup.sh test

unpacked=$PWD/target/corpus
# Unpacked beside its place and renamed: a run that was cut short leaves nothing half-done.
if [ ! -d "$unpacked" ] || [ "$archive" -nt "$unpacked" ]; then
    rm -rf "$unpacked" "$unpacked.partial"
    mkdir -p "$unpacked.partial"
    zstd --decompress --stdout --quiet "$archive" | tar -xf - -C "$unpacked.partial"
    find "$unpacked.partial" -name '*.bz2' -exec bunzip2 --keep {} +
    touch "$unpacked.partial"
    mv "$unpacked.partial" "$unpacked"
fi

# Of the whole workspace, as `make test` builds it: nothing of another's is built again.
cargo build --quiet --workspace --all-targets --locked
CE_AGENT=$PWD/target/debug/ce-agent CE_CORPUS_DIR=$unpacked cargo test --quiet --workspace --locked \
    --features ce-regf/corpus,ce-platform/corpus,ce-tests/corpus --test corpus --test prepare_corpus \
    --test bcd_corpus --test catalog_corpus --test database_corpus --test driver_corpus
echo "test-corpus: passed"

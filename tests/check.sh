#!/usr/bin/env bash
# The checks behind `make test` and `make lint`: all of them, or those named. Stops at the first that
# fails; the last line says how it went.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly ALL=(format clippy documentation scripts dependencies tests devices doctests fuzz)

check_format() {
    cargo fmt --all --check
}

check_clippy() {
    cargo clippy --quiet --workspace --all-targets --all-features --locked -- -D warnings
}

check_documentation() {
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps --document-private-items --locked
}

check_scripts() {
    shellcheck -x .ci/run packaging/image/*.sh packaging/deb/build.sh packaging/deb/{postinst,postrm,prerm} tests/*.sh
}

# Licences, banned crates and sources. Advisories need a network and are not part of this.
check_dependencies() {
    PATH="$PWD/target/tools/bin:$PATH" cargo deny --offline --locked --log-level error check bans licenses sources
}

check_tests() {
    # The programs under test are built once, with the features that the tests are built with, and not by
    # every test anew.
    cargo build --quiet --workspace --all-targets --locked &&
        CE_AGENT=$PWD/target/debug/ce-agent CE_REFERENCE_CONNECTOR=$PWD/target/debug/ce-connector \
            CE_INIT=$PWD/target/debug/ce-init cargo test --quiet --workspace --all-targets --no-fail-fast --locked
}

# Block devices and network cards can only be made by root, on a kernel that has both kinds.
check_devices() {
    if [ "$(id -u)" != 0 ] || [ ! -e /dev/loop-control ] || [ ! -e /dev/net/tun ]; then
        echo "no device can be made here: run this as root, where there are /dev/loop-control and /dev/net/tun"
        return 0
    fi
    # Of the whole workspace, so that nothing is built again for fewer features.
    test_devices --test attach --test device && test_devices --test image addresses
}

test_devices() {
    CE_AGENT=$PWD/target/debug/ce-agent CE_REFERENCE_CONNECTOR=$PWD/target/debug/ce-connector \
        CE_INIT=$PWD/target/debug/ce-init \
        cargo test --quiet --locked --workspace --features ce-tests/device "$@"
}

# Boots a Debian; what it is made of comes by network, once. Not part of all.
check_debian() {
    tests/debian.sh &&
        cargo build --quiet --workspace --all-targets --locked &&
        CE_AGENT=$PWD/target/debug/ce-agent CE_REFERENCE_CONNECTOR=$PWD/target/debug/ce-connector \
            cargo test --quiet --locked --workspace --features ce-tests/debian --test package
}

check_doctests() {
    cargo test --quiet --workspace --doc --locked
}

check_fuzz() {
    tests/fuzz.sh "${FUZZ_SECONDS:-3}"
}

[ $# -gt 0 ] || set -- "${ALL[@]}"
begin=$SECONDS
for step in "$@"; do
    echo "== $step"
    started=$SECONDS
    if ! "check_$step"; then
        echo "FAILED: $step, after $((SECONDS - begin)) s"
        exit 1
    fi
    echo "-- $step passed in $((SECONDS - started)) s"
done
echo "PASSED: $* in $((SECONDS - begin)) s"

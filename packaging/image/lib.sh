# What the scripts of this folder share. Sourced, not run.
# shellcheck shell=bash

# Where packages and what is made of them is kept between builds.
readonly CACHE=${CE_IMAGE_CACHE:-target/image}

fail() {
    echo "image: $*" >&2
    exit 1
}

# Names of programs that have to be there.
need() {
    local program
    for program; do
        command -v "$program" >/dev/null || fail "$program is missing; run 'make setup'"
    done
}

# The time that everything in the image has: that of the last commit, or what $SOURCE_DATE_EPOCH says.
build_time() {
    if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
        echo "$SOURCE_DATE_EPOCH"
    else
        git log -1 --format=%ct 2>/dev/null || fail "no git history; say SOURCE_DATE_EPOCH"
    fi
}

# The kernel's package and that of the boot stub, as fetch.sh left them.
package_file() {
    local found=("$CACHE/packages/$1"_*.deb)
    [ -e "${found[0]}" ] || fail "there is no package of $1; run packaging/image/fetch.sh"
    [ ${#found[@]} = 1 ] || fail "there are several packages of $1 in $CACHE/packages"
    echo "${found[0]}"
}

kernel_package() {
    cat "$CACHE/packages/kernel" 2>/dev/null || fail "there is no kernel; run packaging/image/fetch.sh"
}

# shellcheck disable=SC2034 # It is used by those who source this.
readonly STUB_PACKAGE=systemd-boot-efi

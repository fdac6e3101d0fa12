# Everything a developer runs. `make` alone lists it.

CARGO_HOME ?= $(HOME)/.cargo
# rustup's cargo first; disk tools live in sbin, which is not on every user's PATH.
export PATH := $(CARGO_HOME)/bin:$(PATH):/usr/sbin:/sbin

FUZZ_SECONDS ?= 60
BENCH_DIR ?= target/bench

.DEFAULT_GOAL := help
.PHONY: help setup demo deb image test test-long test-corpus test-deb test-image bench lint fuzz clean

help: ## This list
	@echo 'make TARGET, where TARGET is one of:'
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-12s %s\n", $$1, $$2 }'

setup: ## Install what is missing: Rust, disk tools, crates (nothing when all is there)
	@tests/setup.sh test

demo: ## Export a disk with NTFS on it and let other programs check the image
	@tests/setup.sh demo
	@tests/demo.sh

deb: ## The Debian package, in target/deb
	@tests/setup.sh deb
	@cargo build --quiet --release --locked --bin ce-agent
	@cargo run --quiet --locked -p ce-agent --example pages -- target/deb/pages
	@packaging/deb/build.sh target/release/ce-agent target/deb/pages target/deb/ce-agent.deb
	@echo target/deb/ce-agent.deb

test: setup ## All checks that need only this clone: style, lints, tests, short fuzzing, licences
	@tests/check.sh

test-long: setup ## The same with more random cases, more kills and a minute for each fuzz target
	@TEST_LONG=1 PROPTEST_CASES=256 FUZZ_SECONDS=60 tests/check.sh

test-corpus: ## Tests on real images; CE_CORPUS=FOLDER names where corpus.tar.zst is
	@CE_CORPUS='$(CE_CORPUS)' tests/corpus.sh

image: setup ## The image of the Compositing Engine in every format, into target/image/out; takes the newest kernel
	@packaging/image/make.sh

test-image: setup ## The image as it is shipped: every format looked at by others, and started by UEFI
	@tests/image.sh

bench: setup ## Compare export with qemu-img and md5sum; BENCH_DIR=FOLDER, WRITE=1 renews docs/benchmarks.md
	@tests/bench.sh '$(BENCH_DIR)' $(if $(WRITE),--write docs/benchmarks.md)

lint: setup ## Formatting, clippy, documentation and shell scripts only
	@tests/check.sh format clippy documentation scripts

fuzz: setup ## Fuzz every target; FUZZ_SECONDS=60 for each
	@tests/fuzz.sh '$(FUZZ_SECONDS)'

test-deb: ## Install the package in a plain Debian under QEMU and start it; needs a network once
	@tests/setup.sh test-deb
	@tests/check.sh debian

clean: ## Remove everything that was built, and the tools in target/
	cargo clean
	rm -rf tests/fuzz/target

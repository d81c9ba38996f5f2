# Two commands do everything on a fresh Debian machine, from a clone: `make demo` and `make test`.
# Both install what they need (as root, or through sudo) and say what they do.

CARGO ?= cargo

.PHONY: help demo demo-host test bench image qemu test-board soak cross packaging sbom setup setup-board deny clean

help:
	@echo 'make demo       build, make two firmware versions and an A/B disk image, push updates over SSH'
	@echo 'make test       format, linter, all tests (real OpenSSH and dropbear clients, golden vectors)'
	@echo 'make bench      compare with OpenSSH, dropbear, unzip and dd; writes docs/benchmarks.md'
	@echo 'make image      build an A/B disk image for QEMU ARM64 with Myelin in it: target/image/disk.img'
	@echo 'make qemu       start that image, with SSH forwarded to a free port'
	@echo 'make test-board boot, update and break the emulated board; power cuts and resets (make soak: thousands)'
	@echo 'make cross      build for aarch64, armv7 and armv6, with glibc and musl'
	@echo 'make packaging  check the Buildroot tree and the Yocto layer with the tools that PyPI has'
	@echo 'make sbom       list what the program is made of (CycloneDX)'
	@echo 'make deny       check licences and sources of the dependencies (needs cargo-deny)'
	@echo 'make setup      only install what the above need'
	@echo 'make clean      remove what was built'

setup:
	@scripts/setup.sh

demo: demo-host

demo-host: setup
	$(CARGO) build --release --locked
	demo/host.sh target/release/myelin

test: setup
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	shellcheck -x scripts/*.sh demo/*.sh image/*.sh .ci/run
	$(CARGO) test --locked

bench: setup
	$(CARGO) build --release --locked
	python3 bench/bench.py --myelin target/release/myelin --output docs/benchmarks.md

setup-board:
	@scripts/setup.sh board

image: setup-board
	scripts/cross.sh aarch64-unknown-linux-musl
	$(CARGO) build --locked
	image/build.sh

qemu:
	@[ -e target/image/disk.img ] || $(MAKE) image
	image/board.py

test-board: setup-board
	scripts/cross.sh aarch64-unknown-linux-musl
	$(CARGO) build --locked
	tests/qemu/run.py

soak: setup-board
	scripts/cross.sh aarch64-unknown-linux-musl
	$(CARGO) build --locked
	tests/qemu/run.py soak

cross: setup-board
	for target in aarch64-unknown-linux-gnu aarch64-unknown-linux-musl armv7-unknown-linux-gnueabihf \
	    armv7-unknown-linux-musleabihf arm-unknown-linux-gnueabihf arm-unknown-linux-musleabihf; do \
	    scripts/cross.sh $$target && scripts/cross_check.py $$target || exit 1; done

packaging: setup
	scripts/check-packaging.sh

sbom: setup
	scripts/sbom.py

deny:
	$(CARGO) deny --locked check licenses bans sources

clean:
	$(CARGO) clean

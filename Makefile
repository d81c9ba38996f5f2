# Two commands do everything on a fresh Debian machine, from a clone: `make demo` and `make test`.
# Both install what they need (as root, or through sudo) and say what they do.
#
# What costs most from nothing is compiling the standard library and Myelin for two more processors. Both are kept
# below ~/.cache/myelin and target/, so that only the first run pays for them.

CARGO ?= cargo
# The board's processor, and the smallest one that we build for.
BOARD = aarch64-unknown-linux-musl
SMALLEST = arm-unknown-linux-musleabihf
# What is said with clients is tested with those of Debian 12 and with those of the release after it.
WITH_NEWER_CLIENTS = transport conformance sessions key_login certificates security_keys forward sftp

# Most tests wait for something, so more of them can run than there are processors.
export RUST_TEST_THREADS ?= 4

.PHONY: help demo demo-host test test-host test-cross test-board soak fuzz bench image qemu board cross packaging sbom \
    setup setup-board deny clean

help:
	@echo 'make demo       start an emulated ARM64 board, push good and bad updates over SSH, watch it come back'
	@echo 'make demo-host  the same on this machine and a disk image, without the board and its cross build'
	@echo 'make test       all of the following'
	@echo 'make test-host  format, linter, all tests (real OpenSSH and dropbear clients, golden vectors)'
	@echo 'make test-cross build for the board and for ARMv6, and run that as its smallest processor'
	@echo 'make test-board boot, update and break the emulated board; power cuts and resets'
	@echo 'make soak       thousands of power cuts, hundreds of resets; writes docs/soak.md'
	@echo 'make fuzz       run every fuzz target, FUZZ_RUNS times each (1000000)'
	@echo 'make bench      compare with OpenSSH, dropbear, unzip and dd; writes docs/benchmarks.md'
	@echo 'make image      build an A/B disk image for QEMU ARM64 with Myelin in it: target/image/disk.img'
	@echo 'make qemu       start that image, with SSH forwarded to a free port'
	@echo 'make cross      build for aarch64, armv7 and armv6, with glibc and musl'
	@echo 'make packaging  check the Buildroot tree and the Yocto layer with the tools that PyPI has'
	@echo 'make sbom       list what the program is made of (CycloneDX)'
	@echo 'make deny       check licences and sources of the dependencies (needs cargo-deny)'
	@echo 'make setup      only install what the above need'
	@echo 'make clean      remove what was built'

setup:
	@scripts/setup.sh

demo: board
	demo/board.py

demo-host: setup
	$(CARGO) build --release --locked
	demo/host.sh target/release/myelin

# Builds for other processors need time and no attention, most tests wait: so they go on beside each other.
test:
	@scripts/setup.sh board
	$(MAKE) -j 2 test-host test-cross
	$(MAKE) test-board

test-host: setup
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	shellcheck -x scripts/*.sh demo/*.sh image/*.sh .ci/run
	$(CARGO) test --locked
	if clients=$$(scripts/newer_clients.sh); then \
	    PATH="$$clients:$$PATH" $(CARGO) test --locked $(addprefix --test ,$(WITH_NEWER_CLIENTS)); \
	else \
	    echo 'SKIPPED: the tests with newer clients'; \
	fi

# Link time optimisation keeps one processor busy, so two targets are built at a time.
test-cross: setup-board
	$(MAKE) -j 2 $(addprefix cross-,$(BOARD) $(SMALLEST))
	scripts/cross_check.py $(BOARD) $(SMALLEST)

test-board: board
	tests/qemu/run.py

# 10,000 states and 500 resets, nearly two hours on an idle machine.
soak: board
	tests/qemu/run.py soak --report docs/soak.md

fuzz:
	@scripts/setup.sh fuzz
	scripts/fuzz.sh

bench: setup
	$(CARGO) build --release --locked
	python3 bench/bench.py --myelin target/release/myelin --output docs/benchmarks.md

setup-board:
	@scripts/setup.sh board

# Myelin for the board, and for this machine what makes its images and talks to it.
board: setup-board
	scripts/cross.sh $(BOARD)
	$(CARGO) build --locked

image: board
	image/build.sh

qemu:
	@[ -e target/image/disk.img ] || $(MAKE) image
	image/board.py

cross-%:
	nice -n 10 scripts/cross.sh $* build -q --release --locked

cross: setup-board
	for target in aarch64-unknown-linux-gnu aarch64-unknown-linux-musl armv7-unknown-linux-gnueabihf \
	    armv7-unknown-linux-musleabihf arm-unknown-linux-gnueabihf arm-unknown-linux-musleabihf; do \
	    scripts/cross.sh $$target && scripts/cross_check.py $$target || exit 1; done
	for target in arm-unknown-linux-gnueabihf arm-unknown-linux-musleabihf; do \
	    scripts/cross.sh $$target rustc --bin myelin --release --locked -- -C strip=none && \
	    scripts/armv6_check.py target/cross/$$target/rustc/myelin || exit 1; done

packaging: setup
	scripts/check-packaging.sh

sbom: setup
	scripts/sbom.py

deny:
	$(CARGO) deny --locked check licenses bans sources

clean:
	$(CARGO) clean

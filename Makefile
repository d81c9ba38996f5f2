# Two commands do everything on a fresh Debian machine, from a clone: `make demo` and `make test`.
# Both install what they need (as root, or through sudo) and say what they do.

CARGO ?= cargo

.PHONY: help demo demo-host test bench setup deny clean

help:
	@echo 'make demo       build, make two firmware versions and an A/B disk image, push updates over SSH'
	@echo 'make test       format, linter, all tests (real OpenSSH and dropbear clients, golden vectors)'
	@echo 'make bench      compare with OpenSSH, dropbear, unzip and dd; writes docs/benchmarks.md'
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
	shellcheck scripts/*.sh demo/*.sh .ci/run
	$(CARGO) test --locked

bench: setup
	$(CARGO) build --release --locked
	python3 bench/bench.py --myelin target/release/myelin --output docs/benchmarks.md

deny:
	$(CARGO) deny --locked check licenses bans sources

clean:
	$(CARGO) clean

################################################################################
#
# Rust for Buildroot 2026.02 LTS
#
################################################################################

# For BR2_PACKAGE_OVERRIDE_FILE: 2026.02 brings Rust 1.88, Myelin needs 1.89. The
# hashes come from a newer Buildroot; docs/buildroot.md tells how.
override RUST_BIN_VERSION = 1.96.1

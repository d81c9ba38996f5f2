# shellcheck shell=sh disable=SC1091,SC2034 # the scripts use what is set here
# What the image scripts share, on top of scripts/common.sh. To be sourced, from the folder image/.

. "$(dirname "$0")/../scripts/common.sh"
HERE=$TOP/image
OUT=${IMAGE_OUT:-$TOP/target/image}      # everything that is made
SUITE=bookworm                           # Debian's release for kernel, BusyBox and e2fsprogs
# What Buildroot makes its image of; ours is made of the same files.
BOARD=${IMAGE_BOARD:-$TOP/buildroot-package/board}
PACKAGE=$TOP/buildroot-package/package/myelin
mkdir -p "$OUT"

# device_packages NAME...: unpacked once into $WORK/image/packages
device_packages() {
    packages=$WORK/image/packages
    conf=$(apt_state arm64 "$SUITE") || die "no package index of Debian $SUITE for arm64"
    unpack_packages "$conf" "$packages" "$@" || die "a package is missing"
}

# host_myelin: the program for this machine, what was built last
host_myelin() {
    [ -z "${MYELIN:-}" ] || { echo "$MYELIN"; return; }
    # shellcheck disable=SC2012 # these names are plain
    ls -t "$TOP/target/release/myelin" "$TOP/target/debug/myelin" 2>/dev/null | head -n 1 | grep . ||
        die "there is no Myelin for this machine; run cargo build, or name one in MYELIN"
}

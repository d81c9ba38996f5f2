#!/bin/sh
# One firmware file for the board.
#
#   image/firmware.sh VERSION OUT.fw      (kernel.sh comes before it; takes the variables of rootfs.sh)
#
#   MYELIN   Myelin for this machine, whose applet makes the file (default: what cargo has built)
#   KERNEL, INITRAMFS, ROOTFS, FWUP_CONF   other files than the usual ones, for tests
. "$(dirname "$0")/common.sh"
need mkimage
VERSION=$1 result=$2
: "${KERNEL:=$OUT/Image}" "${INITRAMFS:=$OUT/initrd.img}"
if [ -z "${ROOTFS:-}" ]; then
    ROOTFS=$OUT/rootfs-$VERSION.squashfs
    "$HERE/rootfs.sh" "$VERSION" "$ROOTFS"
fi
BOOT_SCRIPT=$OUT/boot.scr
export VERSION KERNEL INITRAMFS ROOTFS BOOT_SCRIPT

hex() { printf '%#x' "$1"; }
size=$((ENV_COUNT * 512 - 1)) # of a copy without its flag byte
sed -e "s/@ENV_A@/$(hex "$ENV_A")/; s/@ENV_B@/$(hex "$ENV_B")/; s/@ENV_COUNT@/$(hex "$ENV_COUNT")/" \
    -e "s/@ENV_SIZE@/$(hex $size)/; s/@ENV_DATA@/$(hex $((size - 4)))/" "$HERE/boot.cmd" > "$OUT/boot.cmd"
mkimage -A arm64 -T script -C none -n "Myelin slots" -d "$OUT/boot.cmd" "$BOOT_SCRIPT" >/dev/null

"$(host_myelin)" fwup -c -f "${FWUP_CONF:-$HERE/fwup.conf}" -o "$result"
say "$result: $(stat -c %s "$result") bytes"

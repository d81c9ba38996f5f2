#!/bin/sh
# The board's disk: builds kernel, root file system and firmware file, and installs that on a new disk image.
#
#   image/build.sh [VERSION]     -> $OUT/myelin-VERSION.fw, $OUT/disk.img, $OUT/flash.img
#
# Needs no root rights and mounts nothing. See kernel.sh, rootfs.sh and firmware.sh for what can be set.
# shellcheck disable=SC1091,SC2153,SC2154 # checked by itself
. "$(dirname "$0")/common.sh"
need mkenvimage mkimage
version=${1:-1.0.0}
firmware=$OUT/myelin-$version.fw

"$HERE/kernel.sh"
"$HERE/firmware.sh" "$version" "$firmware"

disk=$OUT/disk.img
rm -f "$disk"
truncate -s 512M "$disk" # a power of two, as QEMU wants of SD cards
"$(host_myelin)" fwup -a -q -d "$disk" -i "$firmware" -t complete

# U-Boot's own settings lie in the board's second flash: no delay, straight to the boot script.
mkenvimage -s 0x40000 -o "$OUT/flash.env" "$BOARD/qemu_aarch64/uboot-env.txt"
rm -f "$OUT/flash.img"
truncate -s 64M "$OUT/flash.img"
dd if="$OUT/flash.env" of="$OUT/flash.img" conv=notrunc status=none
say "$disk: slot a holds $version, $(du -k "$disk" | cut -f1) KiB used"

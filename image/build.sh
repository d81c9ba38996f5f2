#!/bin/sh
# The board's disk: builds kernel, root file system and firmware file, and installs that on a new disk image.
#
#   image/build.sh [VERSION]     -> $OUT/myelin-VERSION.fw, $OUT/disk.img, $OUT/flash.img
#
# Needs no root rights and mounts nothing. See kernel.sh, rootfs.sh and firmware.sh for what can be set.
. "$(dirname "$0")/common.sh"
need mkenvimage mkimage
version=${1:-1.0.0}
firmware=$OUT/myelin-$version.fw

"$HERE/kernel.sh"
"$HERE/firmware.sh" "$version" "$firmware"

disk=$OUT/disk.img
rm -f "$disk"
truncate -s $((DISK_COUNT * 512)) "$disk"
"$(host_myelin)" fwup -a -q -d "$disk" -i "$firmware" -t complete

# U-Boot's own settings lie in the board's second flash: no delay, straight to the boot script.
printf '%s\n' bootdelay=-2 'bootcmd=virtio scan; load virtio 0:1 0x40200000 boot.scr && source 0x40200000' |
    mkenvimage -s 0x40000 -o "$OUT/flash.env" -
rm -f "$OUT/flash.img"
truncate -s 64M "$OUT/flash.img"
dd if="$OUT/flash.env" of="$OUT/flash.img" conv=notrunc status=none
say "$disk: slot a holds $version, $(du -k "$disk" | cut -f1) KiB used"

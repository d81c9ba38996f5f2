#!/bin/sh
# One firmware file for the board, by the same fwup.conf and boot.cmd as Buildroot's.
#
#   image/firmware.sh VERSION OUT.fw      (kernel.sh comes before it; takes the variables of rootfs.sh)
#
#   MYELIN   Myelin for this machine, whose applet makes the file (default: what cargo has built)
#   KERNEL, INITRAMFS, ROOTFS, PLATFORM   other ones than usual, for tests
# shellcheck disable=SC1091,SC2153,SC2154 # checked by itself
. "$(dirname "$0")/common.sh"
need mkimage
export VERSION="$1" ROOTFS="${ROOTFS:-$OUT/rootfs-$1.squashfs}"
result=$2
[ "$ROOTFS" != "$OUT/rootfs-$1.squashfs" ] || "$HERE/rootfs.sh" "$VERSION" "$ROOTFS"

# Debian's kernel has its drivers in modules, so one more file goes wherever the kernel goes: the initramfs.
board=$(mktemp -d "$OUT/board.XXXXXX")
trap 'rm -rf "$board"' EXIT
cp -r "$BOARD/common" "$BOARD/qemu_aarch64" "$board/"
# shellcheck disable=SC2016 # the configuration's own variables
sed -i 's|^file-resource Image {|file-resource initrd.img { host-path = "${IMAGES}/initrd.img" }\n&|
    s|^ *on-resource Image .*|&\non-resource initrd.img { fat_write(${BOOT}, "initrd.img") }|' "$board"/qemu_aarch64/*.conf
# shellcheck disable=SC2016 # U-Boot's own
sed -i '/^ *booti 0x42000000 - 0x40000000$/ c\
    if load virtio 0:${bootpart} 0x48000000 initrd.img; then\
      booti 0x42000000 0x48000000:${filesize} 0x40000000\
    fi' "$board/qemu_aarch64/boot.cmd"
grep -q initrd.img "$board/qemu_aarch64/boot.cmd" || die "the boot script does not start kernels as it did"

export IMAGES="$board/images"
mkdir "$IMAGES"
ln -s "${KERNEL:-$OUT/Image}" "$IMAGES/Image"
ln -s "${INITRAMFS:-$OUT/initrd.img}" "$IMAGES/initrd.img"
mkimage -A arm64 -T script -C none -n "Myelin slots" -d "$board/qemu_aarch64/boot.cmd" "$IMAGES/boot.scr" >/dev/null
"$(host_myelin)" fwup -c -f "$board/qemu_aarch64/fwup.conf" -o "$result"
say "$result: $(stat -c %s "$result") bytes"

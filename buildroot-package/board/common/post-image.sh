#!/bin/sh
# Makes the firmware file, and from it the image of a whole medium.
#
#   post-image.sh BINARIES_DIR BOARD_FOLDER BOARD
#
#   FW_VERSION       what the firmware calls itself (make FW_VERSION=1.2.3)
#   FW_SIGNING_KEY   file with the private key to sign with (myelin fwup -g)
set -eu
here=$(dirname "$0")
IMAGES=$1
folder=$here/../$2
BOARD=$3
VERSION=${FW_VERSION:-0.1.0}
FIRMWARE=$IMAGES/rpi-firmware
ROOTFS=$IMAGES/rootfs.squashfs
export IMAGES BOARD VERSION FIRMWARE ROOTFS

fwup() {
	"$HOST_DIR/bin/myelin" fwup "$@"
}

if [ -e "$folder/boot.cmd" ]; then
	"$HOST_DIR/bin/mkimage" -C none -A arm64 -T script -d "$folder/boot.cmd" "$IMAGES/boot.scr"
fi

firmware=$IMAGES/$BOARD.fw
fwup -c -f "$folder/fwup.conf" -o "$firmware"
if [ -n "${FW_SIGNING_KEY:-}" ]; then
	fwup -S -s "$FW_SIGNING_KEY" -i "$firmware" -o "$firmware.signed"
	mv "$firmware.signed" "$firmware"
fi

# To a new file: on an old one what the new image does not write would stay.
rm -f "$IMAGES/sdcard.img"
fwup -a -q -d "$IMAGES/sdcard.img" -i "$firmware" -t complete

# QEMU wants flash banks of 64 MiB, and a disk with room for /data.
if [ -e "$IMAGES/u-boot.bin" ] && [ -e "$IMAGES/uboot-env.bin" ]; then
	cp "$IMAGES/u-boot.bin" "$IMAGES/flash0.img"
	cp "$IMAGES/uboot-env.bin" "$IMAGES/flash1.img"
	truncate -s 64M "$IMAGES/flash0.img" "$IMAGES/flash1.img"
	truncate -s 1G "$IMAGES/sdcard.img"
fi

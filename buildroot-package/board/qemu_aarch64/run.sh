#!/bin/sh
# Starts what Buildroot made for this board, with SSH on port 2222 of this machine. Ctrl-A X ends it.
#
#   run.sh IMAGES [SSH_PORT]
set -eu
images=$1
port=${2:-2222}

exec qemu-system-aarch64 -M virt -cpu cortex-a53 -smp 1 -m 512M -nographic \
	-drive "if=pflash,unit=0,format=raw,readonly=on,file=$images/flash0.img" \
	-drive "if=pflash,unit=1,format=raw,file=$images/flash1.img" \
	-drive "if=none,id=disk,format=raw,file=$images/sdcard.img" -device virtio-blk-device,drive=disk \
	-netdev "user,id=net,hostfwd=tcp:127.0.0.1:$port-:22" -device virtio-net-device,netdev=net \
	-device i6300esb -action watchdog=reset

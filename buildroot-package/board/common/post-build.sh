#!/bin/sh
# Completes the root file system before it becomes an image.
#
#   post-build.sh TARGET_DIR BOARD_FOLDER BOARD      (BR2_ROOTFS_POST_SCRIPT_ARGS: "rpi rpi4")
#
# Runs again on the same folder at each build, so every step can be repeated.
set -eu
target=$1
folder=$(dirname "$0")/../$2
BOARD=$3
export BOARD

install -D -m 0644 "$(dirname "$0")/fw_env.config" "$target/etc/fw_env.config"

mkdir -p "$target/usr/share/fwup" "$target/data"
"$HOST_DIR/bin/myelin" fwup -c -f "$folder/fwup-ops.conf" -o "$target/usr/share/fwup/ops.fw"

# What the daemon would only report on the device is seen here. It runs in any case, so this stops nothing.
for file in "$target"/etc/myelin/config.toml "$target"/etc/myelin/conf.d/*.toml; do
	[ -e "$file" ] || continue
	"$HOST_DIR/bin/myelin" config check "$file" || echo "post-build: look at $file before you install this image" >&2
done
if [ ! -s "$target/etc/myelin/authorized_keys" ] && ! grep -rqs '^ *authorized_keys' "$target/etc/myelin"; then
	echo "post-build: nobody can log in to this image yet: set BR2_PACKAGE_MYELIN_AUTHORIZED_KEYS" >&2
fi

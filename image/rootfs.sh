#!/bin/sh
# The read-only root file system of the board: BusyBox, e2fsprogs for /data, and Myelin.
#
#   image/rootfs.sh VERSION OUT.squashfs
#
#   MYELIN_TARGET     Myelin for the board (default: what scripts/cross.sh has built)
#   AUTHORIZED_KEYS   file with the keys that may log in (default: the caller's own public keys)
#   OPS               the archive with what a running board does with its slots (default: that of QEMU's board)
#   EXTRA             folder that is copied over the whole, for tests
# shellcheck disable=SC1091,SC2153,SC2154 # checked by itself
. "$(dirname "$0")/common.sh"
need mksquashfs
version=$1 result=$2
myelin=${MYELIN_TARGET:-$TOP/target/cross/aarch64-unknown-linux-musl/release/myelin}
[ -e "$myelin" ] || die "there is no $myelin; run scripts/cross.sh aarch64-unknown-linux-musl"

# There is no default password and no default key: only its owner's key opens the board.
keys=${AUTHORIZED_KEYS:-}
[ -n "$keys" ] || for file in "$HOME"/.ssh/id_ed25519.pub "$HOME"/.ssh/id_ecdsa.pub "$HOME"/.ssh/id_rsa.pub; do
    [ -e "$file" ] && keys=$file && break
done
[ -n "$keys" ] || die "nobody could log in: make a key with ssh-keygen, or name a file of public keys in AUTHORIZED_KEYS"

lock image
device_packages busybox-static libc6 e2fsprogs libext2fs2 libcom-err2 libblkid1 libuuid1
unlock

root=$(mktemp -d "$OUT/root.XXXXXX")
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
(cd "$root" && mkdir -p bin sbin lib usr/bin usr/sbin dev proc sys run tmp root mnt var boot && chmod 700 root)
ln -s /run "$root/var/run"
ln -s /tmp "$root/var/tmp"

cp "$packages/bin/busybox" "$root/bin/busybox"
tr -s ' ' '\n' < "$HERE/applets" | while read -r applet; do ln -s busybox "$root/bin/$applet"; done
for name in init reboot poweroff halt; do ln -s /bin/busybox "$root/sbin/$name"; done

# library NAME: to where the loader of that file looks
mkdir -p "$root/lib/aarch64-linux-gnu"
cp -L "$packages"/lib/ld-linux-aarch64.so.1 "$root/lib/"
for library in libc.so.6 libext2fs.so.2 libe2p.so.2 libcom_err.so.2 libblkid.so.1 libuuid.so.1 libpthread.so.0; do
    for folder in "$packages/lib/aarch64-linux-gnu" "$packages/usr/lib/aarch64-linux-gnu"; do
        [ ! -e "$folder/$library" ] || cp -L "$folder/$library" "$root/lib/aarch64-linux-gnu/"
    done
done
cp "$packages/sbin/e2fsck" "$packages/sbin/mke2fs" "$root/sbin/"

cp -r "$HERE/root/." "$root/"
cp -r "$TOP/rootfs-overlay/." "$root/"
find "$root" -name .empty -delete
echo "$version" > "$root/etc/version"

# Myelin, as Buildroot's package and its post-build.sh install it.
install -D -m 755 "$myelin" "$root/usr/bin/myelin"
install -D -m 755 "$PACKAGE/myelin-data" "$root/usr/sbin/myelin-data"
for script in S12myelin-data S50myelin; do install -m 755 "$PACKAGE/$script" "$root/etc/init.d/$script"; done
install -D -m 644 "$PACKAGE/10-image-keys.toml" "$root/etc/myelin/conf.d/10-image-keys.toml"
install -m 644 "$keys" "$root/etc/myelin/authorized_keys"
install -m 644 "$BOARD/common/fw_env.config" "$root/etc/fw_env.config"
mkdir -p "$root/usr/share/fwup"
ops=$root/usr/share/fwup/ops.fw
if [ -n "${OPS:-}" ]; then
    install -m 644 "$OPS" "$ops"
else
    "$(host_myelin)" fwup -c -f "$BOARD/qemu_aarch64/fwup-ops.conf" -o "$ops"
fi
[ -z "${EXTRA:-}" ] || cp -r "$EXTRA/." "$root/"

rm -f "$result"
# Unpacking is most of what a first start of Myelin costs, and lz4 does it in a third of zstd's time.
mksquashfs "$root" "$result" -noappend -all-root -quiet -no-progress -comp lz4 -Xhc -all-time 0 -mkfs-time 0 >&2
say "$version: $(stat -c %s "$result") bytes"

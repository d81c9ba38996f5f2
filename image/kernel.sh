#!/bin/sh
# Debian's kernel for arm64 virtual machines, and an initramfs of 1.3 MB that mounts the chosen slot.
#
#   image/kernel.sh         -> $OUT/Image, $OUT/initrd.img
#   image/kernel.sh rpi3    -> $OUT/rpi3/Image, initrd.img and rpi3.dtb: the kernel for machines, and a Pi 3's devices
# shellcheck disable=SC1091,SC2153,SC2154 # checked by itself
. "$(dirname "$0")/common.sh"
need depmod cpio xz dpkg-deb

# The board's devices; the emulated one has no watchdog but the kernel's own.
case ${1:-virt} in
    virt) flavour=cloud-arm64 devices="virtio_mmio virtio_blk virtio_net virtio-rng softdog" ;;
    rpi3) flavour=arm64 devices="bcm2835 dwc2 cdc_ether" OUT=$OUT/rpi3; mkdir -p "$OUT" ;;
    *) die "$1 is no board of ours: virt, rpi3" ;;
esac
# The file systems of root and /data, and what these load by themselves on a PC.
MODULES="$devices squashfs crc32c_generic ext4"

lock image
conf=$(apt_state arm64 "$SUITE") || die "no package index of Debian $SUITE for arm64"
package=$(APT_CONFIG=$conf apt-cache depends "linux-image-$flavour" | awk '/Depends: linux-image-/ { print $2; exit }')
[ -n "$package" ] || die "Debian $SUITE has no linux-image-$flavour"
kernel=$WORK/image/$package
unpack_packages "$conf" "$kernel" "$package" || die "no kernel"
device_packages busybox-static
release=$(ls "$kernel/lib/modules")
modules=$kernel/lib/modules/$release
[ -e "$modules/modules.dep" ] || depmod -b "$kernel" "$release"
unlock
cp "$kernel/boot/vmlinuz-$release" "$OUT/Image"
[ "${1:-virt}" = virt ] || cp "$kernel/usr/lib/linux-image-$release/broadcom/bcm2837-rpi-3-b.dtb" "$OUT/$1.dtb"

root=$(mktemp -d "$OUT/initramfs.XXXXXX")
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/new" "$root/modules"
install -m 755 "$packages/bin/busybox" "$root/bin/busybox"
install -m 755 "$HERE/initramfs-init" "$root/init"

# add MODULE: with everything that it depends on before it, in the order of loading
add() {
    line=$(awk -F: -v name="$(echo "$1" | tr _ -)" '
        { file = $1; sub(".*/", "", file); sub("[.]ko.*", "", file); gsub("_", "-", file); if (file == name) { print; exit } }
        ' "$modules/modules.dep")
    [ -n "$line" ] || { grep -q "/$(echo "$1" | tr - _)[.]ko" "$modules/modules.builtin" || say "the kernel has no $1"; return 0; }
    for path in $(echo "${line#*:}" | tr ' ' '\n' | tac) "${line%%:*}"; do
        file=$(basename "$path" .xz)
        [ -e "$root/modules/$file" ] && continue
        case $path in
            *.xz) xz -dc "$modules/$path" > "$root/modules/$file" ;;
            *) cp "$modules/$path" "$root/modules/$file" ;;
        esac
        echo "$file" >> "$root/modules/order"
    done
}
for module in $MODULES; do add "$module"; done

# The same input gives the same bytes.
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 --reproducible) | gzip -6n > "$OUT/initrd.img"
say "$release: Image $(stat -c %s "$OUT/Image") bytes, initrd.img $(stat -c %s "$OUT/initrd.img") bytes"

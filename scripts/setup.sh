#!/bin/sh
# Installs what `make demo`, `make test` and `make bench` need from Debian's packages, and nothing that is there
# already; with the word `board` also what images, the emulated board and cross builds need, with `fuzz` what
# `make fuzz` needs. Says what it installs.
set -eu

# A command or file that shows whether it is there, and the package that brings it.
needed='
ssh openssh-client
ssh-keyscan openssh-client
/usr/lib/openssh/sftp-server openssh-sftp-server
curl curl
rsync rsync
lftp lftp
sshfs sshfs
psftp putty-tools
puttygen putty-tools
/usr/lib/python3/dist-packages/paramiko/__init__.py python3-paramiko
/usr/lib/python3/dist-packages/asyncssh/__init__.py python3-asyncssh
/usr/sbin/sshd openssh-server
dbclient dropbear-bin
dropbearkey dropbear-bin
script bsdutils
python3 python3
shellcheck shellcheck
busybox busybox
zsh zsh
bash bash
dash dash
fsck.fat dosfstools
mtype mtools
unzip unzip
zip zip
cc gcc
/usr/include/libssh/libssh.h libssh-dev
faketime faketime
pgrep procps
unshare util-linux
ip iproute2
dig bind9-dnsutils
/usr/lib/python3/dist-packages/zeroconf/__init__.py python3-zeroconf
avahi-daemon avahi-daemon
prlimit util-linux
git git
/etc/ssl/certs/ca-certificates.crt ca-certificates
'

for_board='
qemu-system-aarch64 qemu-system-arm
qemu-img qemu-utils
qemu-arm-static qemu-user-static
/usr/lib/u-boot/qemu_arm64/u-boot.bin u-boot-qemu
mkimage u-boot-tools
mksquashfs squashfs-tools
cpio cpio
depmod kmod
xz xz-utils
e2fsck e2fsprogs
pip3 python3-pip
llvm-objdump llvm
'
case ${1:-} in
    board) needed="$needed$for_board" ;;
    fuzz) needed="$needed
c++ g++
" ;;
esac

# The oldest Rust that builds this (Cargo.toml, rust-version).
oldest_rust=89

has() {
    [ -e "$1" ] || command -v "$1" > /dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]
}

missing=''
while read -r command package; do
    [ -n "$command" ] || continue
    has "$command" || missing="$missing $package"
done << LIST
$needed
LIST

rust_is_good() {
    has cargo && has rustc && has cargo-clippy && has rustfmt || return 1
    minor=$(rustc --version | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
    [ "${minor:-0}" -ge "$oldest_rust" ]
}
rust_is_good || missing="$missing rustc-web cargo-web rustfmt-web rust-web-clippy"

[ -n "$missing" ] || exit 0

sudo=''
if [ "$(id -u)" != 0 ]; then
    has sudo || {
        echo "setup: these packages are missing, and I may not install them:$missing" >&2
        echo "setup: run as root: apt-get install$missing" >&2
        exit 1
    }
    sudo=sudo
fi
echo "setup: installing from Debian:$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# The list is words on purpose.
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing > /dev/null
echo 'setup: done'

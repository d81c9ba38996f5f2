SUMMARY = "SSH lifeline and A/B firmware updates"
DESCRIPTION = "One program that keeps a device reachable over SSH, writes \
               firmware updates to the slot that does not run, and goes back \
               when the new firmware does not prove itself."
CVE_PRODUCT = "myelin:myelin"
HOMEPAGE = "https://git.example.org/myelin"
BUGTRACKER = "https://git.example.org/myelin/issues"
SECTION = "console/network"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

SRC_URI = "\
    git://git.example.org/myelin.git;protocol=https;branch=main;tag=v${PV} \
"
SRCREV = "0000000000000000000000000000000000000000"

require ${BPN}-crates.inc

inherit cargo cargo-update-recipe-crates systemd update-rc.d

CARGO_LOCK_SRC_DIR = "${S}"

# A file of public keys whose owners may log in to every device with this image.
MYELIN_AUTHORIZED_KEYS ?= ""

# The class strips on its own, and calls what came stripped an error.
export CARGO_PROFILE_RELEASE_STRIP = "none"

PACKAGE_BEFORE_PN = "${PN}-data ${PN}-fwup ${PN}-ssh"

INITSCRIPT_PACKAGES = "${PN} ${PN}-data"
INITSCRIPT_NAME:${PN} = "myelin"
INITSCRIPT_PARAMS:${PN} = "start 10 2 3 4 5 . stop 90 0 1 6 ."
INITSCRIPT_NAME:${PN}-data = "myelin-data"
INITSCRIPT_PARAMS:${PN}-data = "start 39 S ."

# myelin-ssh is the way without the supervisor; both at once would want port 22.
SYSTEMD_PACKAGES = "${PN} ${PN}-data ${PN}-ssh"
SYSTEMD_SERVICE:${PN} = "myelin.service"
SYSTEMD_SERVICE:${PN}-data = "myelin-data.service"
SYSTEMD_SERVICE:${PN}-ssh = "\
    myelin-ssh.socket \
    myelin-ssh.service \
    myelin-agent.service \
    myelin-end-trial.service \
    myelin-end-trial.timer \
    myelin-mdns.service \
"
SYSTEMD_AUTO_ENABLE:${PN}-ssh = "disable"

do_install[file-checksums] += "${@d.getVar('MYELIN_AUTHORIZED_KEYS') + ':True' if d.getVar('MYELIN_AUTHORIZED_KEYS') else ''}"

do_install:append:class-target() {
    files=${S}/buildroot-package/package/myelin

    install -D -m 0755 $files/myelin-data ${D}${sbindir}/myelin-data
    install -d ${D}/data
    ln -s myelin ${D}${bindir}/fwup
    install -D -m 0644 ${S}/rootfs-overlay/etc/myelin/config.toml.example \
        ${D}${sysconfdir}/myelin/config.toml.example

    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        for unit in $files/*.service $files/*.socket $files/*.timer; do
            install -D -m 0644 $unit ${D}${systemd_system_unitdir}/$(basename $unit)
        done
    fi
    if ${@bb.utils.contains('DISTRO_FEATURES', 'sysvinit', 'true', 'false', d)}; then
        install -D -m 0755 $files/S50myelin ${D}${sysconfdir}/init.d/myelin
        install -D -m 0755 $files/S12myelin-data ${D}${sysconfdir}/init.d/myelin-data
    fi
    if [ -n "${MYELIN_AUTHORIZED_KEYS}" ]; then
        install -D -m 0644 "${MYELIN_AUTHORIZED_KEYS}" ${D}${sysconfdir}/myelin/authorized_keys
        install -D -m 0644 $files/10-image-keys.toml ${D}${sysconfdir}/myelin/conf.d/10-image-keys.toml
    fi
}

# What makes images needs the layouts of the boards beside the program.
do_install:append:class-native() {
    install -d ${D}${datadir}/myelin
    cp -R --no-preserve=ownership ${S}/buildroot-package/board ${D}${datadir}/myelin/board
}

FILES:${PN}-data += "/data ${sbindir}/myelin-data ${sysconfdir}/init.d/myelin-data"
FILES:${PN}-fwup += "${bindir}/fwup"

RDEPENDS:${PN}:append:class-target = " ca-certificates"
RDEPENDS:${PN}-data += "e2fsprogs-e2fsck e2fsprogs-mke2fs"
RDEPENDS:${PN}-fwup += "${PN}"
RDEPENDS:${PN}-ssh += "${PN}"
RRECOMMENDS:${PN}:append:class-target = " u-boot-fw-utils"
RCONFLICTS:${PN} = "dropbear openssh-sshd"
RCONFLICTS:${PN}-fwup = "fwup"

BBCLASSEXTEND = "native"

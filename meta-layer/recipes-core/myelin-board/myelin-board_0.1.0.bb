SUMMARY = "Where the slots of a board are"
DESCRIPTION = "The place of the boot environment (fw_env.config) and what a \
               running system does with its slots (ops.fw), for the machine."
CVE_PRODUCT = ""
HOMEPAGE = "https://git.example.org/myelin"
BUGTRACKER = "https://git.example.org/myelin/issues"
SECTION = "base"
LICENSE = "Apache-2.0"
# nooelint: oelint.var.licenseremotefile - all of it is made here
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

DEPENDS = "myelin-native"

SRC_URI = ""

inherit myelin_board

PACKAGE_ARCH = "${MACHINE_ARCH}"

COMPATIBLE_MACHINE = "^(rpi|qemuarm64)$"

do_configure[noexec] = "1"

do_compile() {
    BOARD="${MYELIN_BOARD}" myelin fwup -c -f "${MYELIN_BOARDS}/${MYELIN_BOARD_FOLDER}/fwup-ops.conf" -o ${B}/ops.fw
}

do_install() {
    install -D -m 0644 "${MYELIN_BOARDS}/common/fw_env.config" ${D}${sysconfdir}/fw_env.config
    install -D -m 0644 ${B}/ops.fw ${D}${datadir}/fwup/ops.fw
}

FILES:${PN} += "${datadir}/fwup"

# Image type "fw": the firmware file, made by our own applet, and "fw-disk.img" beside it, a whole medium.
#
# The board's fwup.conf is taken from fwup/MACHINE.fwup.conf of any layer, else from Myelin itself (see
# myelin_board.bbclass).

inherit image-artifact-names myelin_board

MYELIN_FWUP_CONF ?= "${@bb.utils.which(d.getVar('BBPATH'), 'fwup/' + d.getVar('MACHINE') + '.fwup.conf') or d.getVar('MYELIN_BOARDS') + '/' + d.getVar('MYELIN_BOARD_FOLDER') + '/fwup.conf'}"
MYELIN_FW_VERSION ?= "${DISTRO_VERSION}"

# config.txt of a Pi. That of meta-raspberrypi is ${DEPLOY_DIR_IMAGE}/bootfiles/config.txt; it needs
# kernel=Image (RPI_EXTRA_CONFIG).
MYELIN_CONFIG_TXT ?= "${MYELIN_BOARDS}/${MYELIN_BOARD_FOLDER}/${MYELIN_BOARD}/config.txt"

# Private key to sign with: made by `myelin fwup -g`.
MYELIN_SIGNING_KEY ?= ""

IMAGE_TYPES += "fw"
# nooelint: oelint.vars.mispell,oelint.vars.specific - image types are overrides here
IMAGE_TYPEDEP:fw = "squashfs-zst"

# nooelint: oelint.vars.mispell.unknown - made by image.bbclass of IMAGE_CMD
do_image_fw[depends] += "myelin-native:do_populate_sysroot virtual/kernel:do_deploy"
# nooelint: oelint.vars.mispell.unknown - made by image.bbclass of IMAGE_CMD
do_image_fw[depends] += "${@'rpi-bootfiles:do_deploy' if 'rpi' in d.getVar('MACHINEOVERRIDES').split(':') else ''}"
# nooelint: oelint.vars.mispell.unknown - made by image.bbclass of IMAGE_CMD
do_image_fw[depends] += "${@'u-boot-tools-native:do_populate_sysroot virtual/bootloader:do_deploy' if d.getVar('MYELIN_BOARD') == 'qemu_aarch64' else ''}"
# nooelint: oelint.vars.mispell.unknown - made by image.bbclass of IMAGE_CMD
do_image_fw[file-checksums] += "${@bb.utils.which(d.getVar('BBPATH'), 'fwup/' + d.getVar('MACHINE') + '.fwup.conf') + ':True'}"

# nooelint: oelint.task.docstrings - no task, a part of one
IMAGE_CMD:fw () {
    [ -n "${MYELIN_BOARD_FOLDER}" ] || bbfatal "No fwup/${MACHINE}.fwup.conf in any layer, and MYELIN_BOARD is not set for ${MACHINE}"

    images="${DEPLOY_DIR_IMAGE}"
    if [ -e "${MYELIN_BOARDS}/${MYELIN_BOARD_FOLDER}/boot.cmd" ]; then
        images="${WORKDIR}/myelin-images"
        rm -rf "$images"
        mkdir -p "$images"
        ln -s "${DEPLOY_DIR_IMAGE}/Image" "$images/Image"
        mkimage -C none -A arm64 -T script -d "${MYELIN_BOARDS}/${MYELIN_BOARD_FOLDER}/boot.cmd" "$images/boot.scr"
    fi

    export BOARD="${MYELIN_BOARD}"
    export IMAGES="$images"
    export FIRMWARE="${DEPLOY_DIR_IMAGE}/bootfiles"
    export OVERLAYS="${DEPLOY_DIR_IMAGE}"
    export CONFIG_TXT="${MYELIN_CONFIG_TXT}"
    export ROOTFS="${IMGDEPLOYDIR}/${IMAGE_NAME}.squashfs-zst"
    export VERSION="${MYELIN_FW_VERSION}"

    firmware="${IMGDEPLOYDIR}/${IMAGE_NAME}.fw"
    myelin fwup -c -f "${MYELIN_FWUP_CONF}" -o "$firmware"
    if [ -n "${MYELIN_SIGNING_KEY}" ]; then
        myelin fwup -S -s "${MYELIN_SIGNING_KEY}" -i "$firmware" -o "$firmware.signed"
        mv "$firmware.signed" "$firmware"
    fi

    disk="${IMGDEPLOYDIR}/${IMAGE_NAME}.fw-disk.img"
    rm -f "$disk"
    myelin fwup -a -q -d "$disk" -i "$firmware" -t complete
}

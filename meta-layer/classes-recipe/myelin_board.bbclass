# Which of the boards in buildroot-package/board a machine is. Set MYELIN_BOARD and MYELIN_BOARD_FOLDER for
# machines that are not listed.

def myelin_board(d):
    return {
        "qemuarm64": "qemu_aarch64",
        "raspberrypi0": "rpi0",
        "raspberrypi0-wifi": "rpi0",
        "raspberrypi0-2w-64": "rpi3",
        "raspberrypi3-64": "rpi3",
        "raspberrypi4-64": "rpi4",
        "raspberrypi5": "rpi5",
    }.get(d.getVar("MACHINE"), "")

def myelin_board_folder(d):
    board = d.getVar("MYELIN_BOARD")
    return "rpi" if board.startswith("rpi") else board

MYELIN_BOARD ?= "${@myelin_board(d)}"
# nooelint: oelint.vars.mispell.unknown - ours
MYELIN_BOARD_FOLDER ?= "${@myelin_board_folder(d)}"

# Installed by myelin-native.
# nooelint: oelint.vars.mispell.unknown - ours
MYELIN_BOARDS = "${STAGING_DATADIR_NATIVE}/myelin/board"

# The root file system has to be readable before any module is. Only where it is asked for, so that no kernel
# changes because this layer is there: MACHINEOVERRIDES .= ":myelin-kernel" in local.conf.

FILESEXTRAPATHS:prepend:myelin-kernel := "${THISDIR}/files:"

SRC_URI:append:myelin-kernel = " file://myelin.cfg"

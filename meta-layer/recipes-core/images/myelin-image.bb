SUMMARY = "Small read-only A/B image with Myelin"
DESCRIPTION = "Boots, mounts /data, can be reached over SSH and updated on two \
               slots. A start for images of your own."
CVE_PRODUCT = ""
HOMEPAGE = "https://git.example.org/myelin"
BUGTRACKER = "https://git.example.org/myelin/issues"
SECTION = "images"
LICENSE = "Apache-2.0"

inherit core-image

IMAGE_FEATURES += "read-only-rootfs"
IMAGE_INSTALL = "\
    packagegroup-core-boot \
    myelin \
    myelin-board \
    myelin-data \
"
IMAGE_LINGUAS = ""
IMAGE_CLASSES += "image_types_myelin_fw"
IMAGE_FSTYPES = "squashfs-zst fw"

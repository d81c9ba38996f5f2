################################################################################
#
# myelin
#
################################################################################

MYELIN_VERSION = 0.1.0
MYELIN_SITE = $(BR2_EXTERNAL_MYELIN_PATH)/..
MYELIN_SITE_METHOD = local
MYELIN_LICENSE = Apache-2.0
MYELIN_LICENSE_FILES = LICENSE
MYELIN_CPE_ID_VENDOR = myelin

# The host package does not inherit this; without it gigabytes are copied.
MYELIN_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = \
	--exclude /target \
	--exclude /fuzz/target \
	--exclude /buildroot-package \
	--exclude /meta-layer
HOST_MYELIN_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = $(MYELIN_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS)

# Profile values that the infrastructure would replace with its own.
MYELIN_CARGO_ENV = \
	CARGO_PROFILE_RELEASE_OPT_LEVEL="s" \
	CARGO_PROFILE_RELEASE_LTO="fat" \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS="1"

# The local method downloads nothing, so nothing else vendors the crates. Not
# earlier than the configure step: before that host-rustc may be missing.
define MYELIN_VENDOR_CRATES
	mkdir -p $(@D)/.cargo $(BR_CARGO_HOME)
	cd $(@D) && $(HOST_MAKE_ENV) $(PKG_COMMON_CARGO_ENV) \
		flock $(BR_CARGO_HOME)/.br-lock \
		cargo vendor --locked VENDOR > .cargo/config.toml
endef
MYELIN_PRE_CONFIGURE_HOOKS += MYELIN_VENDOR_CRATES
HOST_MYELIN_PRE_CONFIGURE_HOOKS += MYELIN_VENDOR_CRATES

ifneq ($(call qstrip,$(BR2_PACKAGE_MYELIN_AUTHORIZED_KEYS)),)
define MYELIN_INSTALL_AUTHORIZED_KEYS
	$(INSTALL) -D -m 0644 $(call qstrip,$(BR2_PACKAGE_MYELIN_AUTHORIZED_KEYS)) \
		$(TARGET_DIR)/etc/myelin/authorized_keys
	$(INSTALL) -D -m 0644 $(MYELIN_PKGDIR)/10-image-keys.toml \
		$(TARGET_DIR)/etc/myelin/conf.d/10-image-keys.toml
endef
MYELIN_POST_INSTALL_TARGET_HOOKS += MYELIN_INSTALL_AUTHORIZED_KEYS
endif

ifeq ($(BR2_PACKAGE_MYELIN_FWUP),y)
define MYELIN_INSTALL_FWUP
	ln -sf myelin $(TARGET_DIR)/usr/bin/fwup
endef
MYELIN_POST_INSTALL_TARGET_HOOKS += MYELIN_INSTALL_FWUP
endif

ifeq ($(BR2_PACKAGE_MYELIN_DATA),y)
define MYELIN_INSTALL_DATA
	$(INSTALL) -D -m 0755 $(MYELIN_PKGDIR)/myelin-data \
		$(TARGET_DIR)/usr/sbin/myelin-data
	mkdir -p $(TARGET_DIR)/data
endef
MYELIN_POST_INSTALL_TARGET_HOOKS += MYELIN_INSTALL_DATA

define MYELIN_INSTALL_DATA_SYSV
	$(INSTALL) -D -m 0755 $(MYELIN_PKGDIR)/S12myelin-data \
		$(TARGET_DIR)/etc/init.d/S12myelin-data
endef

define MYELIN_INSTALL_DATA_SYSTEMD
	$(INSTALL) -D -m 0644 $(MYELIN_PKGDIR)/myelin-data.service \
		$(TARGET_DIR)/usr/lib/systemd/system/myelin-data.service
endef
endif

ifeq ($(BR2_PACKAGE_MYELIN_SOCKET_ACTIVATION),y)
MYELIN_UNITS = \
	myelin-ssh.socket \
	myelin-ssh.service \
	myelin-agent.service \
	myelin-end-trial.service \
	myelin-end-trial.timer \
	myelin-mdns.service
else
MYELIN_UNITS = myelin.service
endif

# Before S40network, which may wait long for an address.
define MYELIN_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(MYELIN_PKGDIR)/S50myelin \
		$(TARGET_DIR)/etc/init.d/S30myelin
	$(MYELIN_INSTALL_DATA_SYSV)
endef

define MYELIN_INSTALL_INIT_SYSTEMD
	$(foreach unit,$(MYELIN_UNITS), \
		$(INSTALL) -D -m 0644 $(MYELIN_PKGDIR)/$(unit) \
			$(TARGET_DIR)/usr/lib/systemd/system/$(unit)
	)
	$(MYELIN_INSTALL_DATA_SYSTEMD)
endef

$(eval $(cargo-package))
$(eval $(host-cargo-package))

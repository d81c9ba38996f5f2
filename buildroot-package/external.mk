include $(sort $(wildcard $(BR2_EXTERNAL_MYELIN_PATH)/package/*/*.mk))

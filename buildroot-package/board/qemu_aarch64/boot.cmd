# The boot loader's part of A/B updates on QEMU's virt board: chooses the slot, counts its starts, goes back when
# a trial failed. mkimage makes boot.scr of it; U-Boot runs that from the first partition.
#
# Stock builds for QEMU know no redundant environment, so the two copies are read by hand in that format: CRC-32
# of the data, a flag byte that counts up, the data. Blocks and sizes are those of common/layout.conf, in hex.
#
# A name that was never given to setenv is a variable of the shell: it survives `env import -d` and is not
# exported. setexpr and itest read hexadecimal, so bootcount and bootlimit must stay below 10.

virtio scan
virtio read 0x41000000 0x100 0x40
virtio read 0x41100000 0x200 0x40

# Without the flag byte they are what `env import` takes.
cp.b 0x41000000 0x41200000 4
cp.b 0x41000005 0x41200004 0x7ffb
cp.b 0x41100000 0x41300000 4
cp.b 0x41100005 0x41300004 0x7ffb

# Copy 2 is the newer one when its flag is 1 to 127 ahead, modulo 256.
setexpr.b flag1 *0x41000004
setexpr.b flag2 *0x41100004
setexpr ahead 0x100 + ${flag2}
setexpr ahead ${ahead} - ${flag1}
setexpr ahead ${ahead} \& 0xff
first=0x41200000
second=0x41300000
if itest ${ahead} -gt 0; then if itest ${ahead} -lt 0x80; then
  first=0x41300000
  second=0x41200000
fi; fi

# The newer copy if it is whole, else the other, else nothing, which means slot a. -d: what is exported below is
# then what the device's software wrote, and nothing of U-Boot's own.
loaded=none
if env import -d -c ${first} 0x7fff; then loaded=${first};
elif env import -d -c ${second} 0x7fff; then loaded=${second}; fi
echo "slots: environment from ${loaded}"

slot=a
other=b
if test "${nerves_fw_active}" = b; then
  slot=b
  other=a
fi

trial=0
failed=0
if test "${upgrade_available}" = 1; then
  trial=1
  limit=1
  if test -n "${bootlimit}"; then limit=${bootlimit}; fi
  if test -z "${bootcount}"; then setenv bootcount 0; fi
  setexpr bootcount ${bootcount} + 1
  if itest ${bootcount} -gt ${limit}; then failed=1; fi
fi
if test "${nerves_fw_validated}" = 0; then
  trial=1
  if test "${nerves_fw_booted}" = 1; then failed=1; fi
  setenv nerves_fw_booted 1
fi

save=${trial}
if test ${failed} = 1; then
  echo "slots: ${slot} was not validated, going back to ${other}"
  swap=${slot}
  slot=${other}
  other=${swap}
  trial=0
  setenv nerves_fw_active ${slot}
  if test -n "${upgrade_available}"; then setenv upgrade_available 0; setenv bootcount 0; fi
  if test -n "${nerves_fw_validated}"; then setenv nerves_fw_validated 1; fi
fi

# The count is on the disk before the kernel starts. It goes into the copy that was not loaded, so a power cut
# here leaves the loaded one, and this start is only repeated.
if test ${save} = 1; then
  block=0x100
  setexpr.b flag *0x41100004
  if test ${loaded} = 0x41200000; then
    block=0x200
    setexpr.b flag *0x41000004
  fi
  setexpr flag ${flag} + 1
  setexpr flag ${flag} \& 0xff
  mw.b 0x41500004 ${flag}
  setenv flag
  if env export -c -s 0x7fff 0x41400000; then
    cp.b 0x41400000 0x41500000 4
    cp.b 0x41400004 0x41500005 0x7ffb
    virtio write 0x41500000 ${block} 0x40
  fi
fi

for attempt in 1 2; do
  bootpart=2
  rootpart=5
  if test ${slot} = b; then
    bootpart=3
    rootpart=6
  fi
  echo "slots: starting ${slot}, trial ${trial}"
  setenv bootargs console=ttyAMA0 quiet panic=1 ro rootfstype=squashfs root=/dev/vda${rootpart} myelin.slot=${slot}
  if load virtio 0:${bootpart} 0x42000000 Image; then
    booti 0x42000000 - 0x40000000
  fi
  echo "slots: ${slot} cannot be started"
  # A trial ends by the count of the next start. A validated slot has nothing left but the other one.
  if test ${trial} = 1; then reset; fi
  slot=${other}
done
reset

#!/bin/sh
# The main job of Myelin on this machine: a daemon whose "device" is a disk image with two slots, updates pushed
# over SSH, and the slot table read from the image after each. A program stands in for the reboot: it ends the
# daemon, empties runtime_dir and starts the daemon again.
#
#   demo/host.sh target/release/myelin
set -eu

[ $# = 1 ] || { echo "usage: $0 PATH-OF-MYELIN" >&2; exit 2; }
myelin=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
# Not in /tmp: that may lie in memory.
mkdir -p target
folder=$(mktemp -d "$(pwd)/target/demo.XXXXXX")

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
show() { printf '\033[2m$ %s\033[0m\n' "$*"; }
ssh_options="-F none -p PORT -i $folder/key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes"

end() {
    status=$?
    [ ! -e "$folder/daemon.pid" ] || kill "$(cat "$folder/daemon.pid")" 2> /dev/null || true
    if [ "$status" = 0 ]; then
        rm -rf "$folder"
    else
        echo "demo: failed; what is left is in $folder, the daemon's log in $folder/log" >&2
    fi
}
trap end EXIT
trap 'exit 130' INT TERM

say 'A key pair, and three firmware files'
ssh-keygen -q -t ed25519 -N '' -C demo -f "$folder/key"
for version in 1.0.0 2.0.0 3.0.0; do
    # Half of it compresses, half does not, as in real root file systems.
    { head -c 8M /dev/urandom; yes "firmware $version" | head -c 8M; } > "$folder/rootfs.img"
    FW_VERSION=$version ROOTFS=$folder/rootfs.img "$myelin" fwup -c -f "$here/fwup.conf" -o "$folder/v$version.fw"
    printf '%s  %s bytes  uuid %s\n' "v$version.fw" "$(stat -c %s "$folder/v$version.fw")" \
        "$("$myelin" fwup -m --metadata-key meta-uuid -i "$folder/v$version.fw")"
done

say 'An A/B disk image with version 1.0.0 in slot a'
show 'myelin fwup -a -d disk.img -i v1.0.0.fw -t complete'
"$myelin" fwup -a -q -d "$folder/disk.img" -i "$folder/v1.0.0.fw" -t complete
printf '%s 0x20000 0x2000\n%s 0x40000 0x2000\n' "$folder/disk.img" "$folder/disk.img" > "$folder/fw_env.config"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
ssh_options=$(printf '%s' "$ssh_options" | sed "s/PORT/$port/")
cat > "$folder/config.toml" << TOML
state_dir = "$folder/state"
runtime_dir = "$folder/run"

[ssh]
listen_address = ["127.0.0.1", "::1"]
port = $port
authorized_keys = ["$(cat "$folder/key.pub")"]

[firmware]
fwup = "auto"
devpath = "$folder/disk.img"
env_config = "$folder/fw_env.config"
success_action = ["$folder/reboot"]
TOML
cat > "$folder/start" << SH
#!/bin/sh
"$myelin" daemon --config "$folder/config.toml" >> "$folder/log" 2>&1 < /dev/null &
echo \$! > "$folder/daemon.pid"
SH
cat > "$folder/reboot" << SH
#!/bin/sh
pid=\$(cat "$folder/daemon.pid")
kill "\$pid"
while kill -0 "\$pid" 2> /dev/null; do sleep 0.05; done
rm -rf "$folder/run"
exec "$folder/start"
SH
chmod +x "$folder/start" "$folder/reboot"

say "The daemon, on port $port"
show 'myelin daemon --config config.toml'
"$folder/start"
for _ in $(seq 100); do
    # Words on purpose, here and below.
    # shellcheck disable=SC2086
    ssh $ssh_options root@127.0.0.1 true 2> /dev/null && break
    sleep 0.1
done
# shellcheck disable=SC2086
ssh $ssh_options root@127.0.0.1 'echo "logged in over SSH as $USER"'

slots() { "$myelin" --config "$folder/config.toml" firmware status; }
running() { "$myelin" --config "$folder/config.toml" firmware status --json | sed 's/.*"running":"\([ab]\)".*/\1/'; }
wait_for_slot() {
    for _ in $(seq 200); do
        [ "$(running)" != "$1" ] || return 0
        sleep 0.1
    done
    echo "demo: slot $1 does not run" >&2
    return 1
}
slots

say 'Version 2.0.0, with nothing but stock ssh'
show 'cat v2.0.0.fw | ssh -s DEVICE fwup'
# shellcheck disable=SC2086
ssh $ssh_options -s root@127.0.0.1 fwup < "$folder/v2.0.0.fw"
echo "ssh says: exit status $?"
wait_for_slot b
slots

say 'A push that breaks off: half of version 3.0.0'
show 'head -c 4M v3.0.0.fw | ssh -s DEVICE fwup'
status=0
# shellcheck disable=SC2086
head -c 4M "$folder/v3.0.0.fw" | ssh $ssh_options -s root@127.0.0.1 fwup || status=$?
echo "ssh says: exit status $status; the running slot is untouched and still chosen:"
slots
[ "$status" != 0 ] && [ "$(running)" = b ]

say 'Version 3.0.0, with myelin upload: it waits until the device is back'
show 'myelin upload DEVICE v3.0.0.fw'
"$myelin" upload -F none -p "$port" -i "$folder/key" -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
    -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR --wait=60 root@127.0.0.1 "$folder/v3.0.0.fw"
slots
[ "$(running)" = a ]

say 'Done: two updates, one failed push, and the device was reachable all the time'

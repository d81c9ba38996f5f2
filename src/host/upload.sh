#!/bin/sh
# Sends a firmware file to a device over SSH. Written by `myelin gen-script`; needs nothing but ssh.
#
#   ./upload.sh [HOST] [FILE]
#
# HOST is what ssh takes: a name of ~/.ssh/config, user@host, an address.
# FILE is a .fw file; without it the newest one is sent from where builds put theirs.

# What may be changed here, or set in the environment:
HOST=${1:-${MYELIN_HOST:-nerves.local}}  # the device
FILE=${2:-${MYELIN_FW:-}}                # the file, or a folder with such files
SSH_OPTIONS=${SSH_OPTIONS:-}             # options of ssh, such as "-p 2222 -i key"

set -eu
# zsh splits words and treats patterns as other shells do only when asked.
if [ -n "${ZSH_VERSION:-}" ]; then emulate sh; fi

say() { printf '%s\n' "$*" >&2; }
give_up() { say "upload.sh: $1"; exit "$2"; }

case $HOST in
-h | --help)
    say "Usage: $0 [HOST] [FILE]"
    say "Environment: MYELIN_HOST, MYELIN_FW, MIX_TARGET and MIX_ENV, SSH_OPTIONS"
    exit 0
    ;;
-*) give_up "a host does not begin with a dash: $HOST" 2 ;;
esac

# Sets FILE to the newest .fw file of a folder, if it has one.
newest_in() {
    equal=''
    for candidate in "$1"/*.fw; do
        [ -f "$candidate" ] || continue
        # dash, busybox, bash, ksh and zsh all know -nt; POSIX does since 2024.
        # shellcheck disable=SC3013
        if [ -z "$FILE" ] || [ "$candidate" -nt "$FILE" ]; then
            FILE=$candidate
            equal=''
        elif ! [ "$FILE" -nt "$candidate" ]; then
            equal="$equal $candidate"
        fi
    done
    [ -z "$equal" ] || give_up "several files are equally new, name one of them: $FILE$equal" 3
}

folder=''
if [ -d "$FILE" ]; then
    folder=$FILE
    FILE=''
    newest_in "$folder"
fi
if [ -z "$FILE" ] && [ -n "${MIX_TARGET:-}" ] && [ -n "${MIX_ENV:-}" ]; then
    newest_in "./_build/${MIX_TARGET}_${MIX_ENV}/nerves/images"
fi
for folder in ./output/images ./images ./build/tmp/deploy/images/* .; do
    if [ -z "$FILE" ]; then newest_in "$folder"; fi
done
[ -n "$FILE" ] || give_up "no .fw file was found; name one: $0 $HOST FILE" 3
[ -r "$FILE" ] || give_up "there is no such file: $FILE" 3

say "Path: $FILE"
say "Uploading to $HOST..."
# Build tools set it for their own libraries, and ssh breaks on those.
unset LD_LIBRARY_PATH
# shellcheck disable=SC2086  # these are several words
exec ssh $SSH_OPTIONS -o ConnectTimeout=10 -o ServerAliveInterval=15 -o ServerAliveCountMax=40 \
    -T -s -- "$HOST" fwup <"$FILE"

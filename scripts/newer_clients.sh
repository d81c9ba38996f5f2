#!/bin/sh
# Fetches the SSH clients of the Debian release after 12: OpenSSH 10, dropbear 2025 and PuTTY 0.83 know the post-quantum
# key exchange that Debian 12's do not. They are unpacked below the work folder and run with their own C library;
# nothing is installed.
#
# Prints the folder with the programs, for PATH. Where the packages cannot be had it says so and ends with 1.
# shellcheck disable=SC1091 # checked by itself
. "$(dirname "$0")/common.sh"
SUITE=trixie
folder=$WORK/clients/$SUITE
need apt-get dpkg-deb
lock clients
if [ ! -e "$folder/complete" ]; then
    conf=$(apt_state "$(dpkg --print-architecture)" "$SUITE") || die "no package index of Debian $SUITE"
    # What they depend on, without what only sets up a system.
    packages=$(APT_CONFIG=$conf apt-get -qq -s install openssh-client dropbear-bin putty-tools |
        awk '/^Inst (lib|zlib1g|openssh-client|dropbear-bin|putty-tools)/ { print $2 }')
    say "fetching OpenSSH, dropbear and PuTTY of Debian $SUITE"
    # The list is words on purpose.
    # shellcheck disable=SC2086
    unpack_packages "$conf" "$folder" $packages || die "no newer clients"
    loader=$(find "$folder"/usr/lib/*/ -name 'ld-linux*' | head -n 1)
    [ -n "$loader" ] || die "their C library has no loader"
    mkdir -p "$folder/bin"
    for program in ssh scp sftp ssh-add ssh-agent ssh-keygen ssh-keyscan dbclient dropbearkey plink psftp puttygen; do
        [ -e "$folder/usr/bin/$program" ] || die "$program is not in the packages"
        cat > "$folder/bin/$program" <<PROGRAM
#!/bin/sh
exec '$loader' --library-path '$(dirname "$loader")' --argv0 '$folder/bin/$program' '$folder/usr/bin/$program' "\$@"
PROGRAM
        chmod +x "$folder/bin/$program"
    done
    touch "$folder/complete"
fi
unlock
echo "$folder/bin"

# shellcheck shell=sh disable=SC2034 # the scripts use what is set here
# What the scripts share: the work folder, and Debian's packages for any architecture. To be sourced.
#
# Packages are fetched through an apt state of our own, so the machine's own sources, architectures and
# package database are neither needed nor changed, and no root rights are. Nothing is written outside
# $MYELIN_WORK, which may be kept between runs and shared by work trees.
#
#   MYELIN_WORK     the work folder (default: myelin below the user's cache folder)
#   DEBIAN_MIRROR   where packages come from (default: the mirror that this machine's apt uses)

set -eu

TOP=$(cd "$(dirname "$0")/.." && pwd)
WORK=${MYELIN_WORK:-${XDG_CACHE_HOME:-$HOME/.cache}/myelin}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$WORK"

say() { echo "$(basename "$0" .sh): $*" >&2; }
die() { say "$*"; exit 1; }

# need COMMAND...: stops, naming the first that is missing
need() {
    for command in "$@"; do
        command -v "$command" >/dev/null || die "$command is missing; 'make setup' installs what is needed"
    done
}

# lock SUBJECT: one process at a time prepares it in the work folder; ends with the process or with unlock
lock() { exec 9>"$WORK/$1.lock"; flock 9; }
unlock() { exec 9>&-; }

# retry COMMAND...: a mirror that is just being refreshed answers nonsense for a while
retry() {
    for pause in 5 10 20; do
        "$@" && return
        say "trying again in $pause s: $*"
        sleep $pause
    done
    "$@"
}

debian_mirror() {
    [ -z "${DEBIAN_MIRROR:-}" ] || { echo "$DEBIAN_MIRROR"; return; }
    # shellcheck disable=SC2016 # apt's own words
    apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 2>/dev/null |
        awk '$1 " " $2 == "Debian Debian" { print $3; exit }' | grep . ||
        die "this machine's apt knows no Debian mirror: set DEBIAN_MIRROR to one"
}

# apt_state ARCHITECTURE SUITE: prints the apt configuration of a state for these two. One state each, so that
# an index which is broken for one cannot hurt another. To be called as $(apt_state …): with that shell ends its lock.
apt_state() {
    state=$WORK/apt/$1-$2
    lock "apt-$1-$2"
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    : > "$state/status"
    echo "deb [arch=$1 signed-by=$KEYRING] $(debian_mirror) $2 main" > "$state/sources.list"
    cat > "$state/apt.conf" <<X
APT::Architecture "$1";
APT::Architectures { "$1"; };
APT::Sandbox::User "";
APT::Install-Recommends "false";
Dir::Etc::sourcelist "$state/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::status "$state/status";
Dir::State::lists "$state/lists";
Dir::Cache "$state/cache";
Acquire::Languages "none";
Debug::NoLocking "true";
X
    # A day-old index would ask for packages that the mirror has replaced since.
    if [ -z "$(find "$state/fresh" -mmin -720 2>/dev/null)" ]; then
        retry env APT_CONFIG="$state/apt.conf" apt-get -qq -o APT::Update::Error-Mode=any update >&2 || return 1
        touch "$state/fresh"
    fi
    echo "$state/apt.conf"
}

# unpack_packages APT-CONF FOLDER NAME[=VERSION]...: each is downloaded and unpacked into FOLDER once
unpack_packages() {
    conf=$1 folder=$2; shift 2
    mkdir -p "$folder"
    missing=''
    for package in "$@"; do
        [ -e "$(unpacked "$package")" ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    download=$(mktemp -d "$WORK/download.XXXXXX")
    # The list is words on purpose.
    # shellcheck disable=SC2086
    (cd "$download" && retry env APT_CONFIG="$conf" apt-get -qq download $missing >&2) ||
        { rm -rf "$download"; say "cannot download$missing"; return 1; }
    for package in "$download"/*.deb; do dpkg-deb -x "$package" "$folder"; done
    for package in $missing; do touch "$(unpacked "$package")"; done
    rm -rf "$download"
}

# What says that a package is in $folder.
unpacked() { echo "$folder/.unpacked-$(echo "$1" | tr '/=:' ___)"; }

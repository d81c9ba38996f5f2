#!/bin/sh
# Builds Myelin for another processor, with whatever this machine has for it.
#
#   scripts/cross.sh TARGET [build|run|rustc|test [CARGO-ARGUMENTS...]]     (default: build --release --locked)
#
#   -> target/cross/TARGET/release/myelin after a build, target/cross/TARGET/rustc/myelin after rustc
#
# Two questions are answered apart:
#
# CROSS_RUST: whose compiler and standard library (default: the first that is there)
#   rustup   the user's own toolchain, where TARGET is installed already. Nothing is ever added to it.
#   cross    the tool of that name, where docker or podman answers; it brings its own C side (see cross.toml)
#   debian   rustc and its sources from one Debian release, unpacked in the work folder and run with their own
#            C library. The standard library is compiled from those sources once a target, so there is one for
#            every processor that rustc knows. Needs a cargo.
# CROSS_C: whose C compiler, C library and linker (default: zig, else gcc)
#   zig      ziglang and cargo-zigbuild from PyPI. Start files, C library and unwinder are compiled for exactly
#            the processor that is asked for; that is what makes ARMv6 right.
#   gcc      Debian's cross compiler. Never for ARMv6: the start files of its armhf are ARMv7.
#
# CROSS_GLIBC is the oldest glibc that a *-gnu* program shall run with (default: 2.34).
# shellcheck disable=SC1091 # checked by itself
. "$(dirname "$0")/common.sh"

ZIG=0.17.0
ZIGBUILD=0.24.0
GLIBC=${CROSS_GLIBC:-2.34}
# RELEASE:PACKAGE-SUFFIX, the first that is complete is taken: compiler and sources must be of one version, which
# they are not on every day of a release in the making.
DEBIAN_RUST=${DEBIAN_RUST:-trixie:-web forky: sid:}

[ $# -ge 1 ] || die "usage: cross.sh TARGET [build|run|rustc|test [CARGO-ARGUMENTS...]]"
target=$1; shift
[ $# -ge 1 ] || set -- build --release --locked
subcommand=$1; shift
case $subcommand in build|run|rustc|test) ;; *) die "cannot $subcommand; lint and check for this machine instead" ;; esac
gcc=
case $target in
    aarch64-unknown-linux-gnu) gcc=aarch64-linux-gnu ;;
    armv7-unknown-linux-gnueabihf) gcc=arm-linux-gnueabihf ;;
    arm-unknown-linux-gnueabihf) ;;
    aarch64-unknown-linux-musl|armv7-unknown-linux-musleabihf|arm-unknown-linux-musleabihf|x86_64-unknown-linux-musl) ;;
    *) die "$target is none of our targets; see ARCHITECTURE.md for the list" ;;
esac

has_rustup() { ls "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$target/lib"/libstd-*.rlib >/dev/null 2>&1; }
has_cross() { command -v cross >/dev/null && { docker info || podman info; } >/dev/null 2>&1; }

rust=${CROSS_RUST:-}
[ -n "$rust" ] || if has_rustup; then rust=rustup; elif has_cross; then rust=cross; else rust=debian; fi

### The compiler and the standard library

use_rustup() { has_rustup || die "this toolchain has no $target; 'rustup target add $target' would change that"; }

use_cross() {
    has_cross || die "no cross, or neither docker nor podman answers"
    export CROSS_CONFIG="$TOP/cross.toml"
    exec cross "$subcommand" --target "$target" "$@"
}

use_debian() {
    for from in $DEBIAN_RUST; do
        lock compiler
        if debian_compiler "${from%%:*}" "${from#*:}"; then
            export RUSTC="$compiler/rustc" RUSTDOC="$compiler/rustdoc"
            # Takes minutes, so it holds up nobody who builds for another target.
            lock "library-$target"
            standard_library || die "cannot compile the standard library for $target"
            unlock
            return
        fi
        say "${from%%:*} has no complete rustc${from#*:} today"
    done
    die "no Debian release has a complete compiler; set DEBIAN_RUST"
}

# debian_compiler RELEASE SUFFIX: unpacks rustc, its sources and all libraries they need into $compiler
debian_compiler() {
    compiler=$WORK/rust/$1$2
    conf=$(apt_state "$(dpkg --print-architecture)" "$1") || return 1
    version=$(candidate "rustc$2") sources=$(candidate "rust$2-src")
    [ -n "$version" ] && [ "${version%%[+-]*}" = "${sources%%[+-]*}" ] || return 1
    [ -e "$compiler/.is-$version" ] && return
    say "unpacking rustc $version of Debian $1"
    rm -rf "$compiler"; mkdir -p "$compiler"
    archives=$(dirname "$conf")/cache/archives
    retry env APT_CONFIG="$conf" apt-get -qq -y --download-only install "libstd-rust$2-dev=$version" >&2 || return 1
    for package in "$archives"/*.deb; do dpkg-deb -x "$package" "$compiler" || return 1; done
    rm -f "$archives"/*.deb
    unpack_packages "$conf" "$compiler" "rustc$2=$version" "rust$2-src=$sources" || return 1
    wrap rustc; wrap rustdoc
    touch "$compiler/.is-$version"
}

candidate() { APT_CONFIG=$conf apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ && $2 != "(none)" { print $2 }'; }

# wrap PROGRAM: starts it with its own release's C library. For musl it looks for start files that only
# rustup's libraries bring along; zig has better ones. Build scripts are for this machine, whatever folder they are in.
wrap() {
    loader=$(find "$compiler"/lib64 "$compiler"/usr/lib64 "$compiler"/lib -maxdepth 1 -name 'ld-linux*.so.*' 2>/dev/null | head -n 1)
    libraries=$(dirname "$(find "$compiler/usr/lib" -name 'librustc_driver-*.so' | head -n 1)")
    cat > "$compiler/$1" <<X
#!/bin/sh
case " \$* " in *" --target "*-linux-musl*) set -- "\$@" -C link-self-contained=no ;; esac
exec "$loader" --library-path "$libraries:$compiler/lib/${libraries##*/}:$compiler/usr/lib" "$compiler/usr/bin/$1" "\$@"
X
    chmod +x "$compiler/$1"
}

# Made of the compiler's own sources, as its own build makes it: machine code and bitcode, so that it serves
# with and without link time optimisation. Only this step uses unstable options; the program does not.
standard_library() {
    library=$compiler/usr/lib/rustlib/$target/lib
    [ -e "$library/.complete" ] && return
    say "compiling the standard library for $target"
    nothing=$WORK/rust/$target/nothing; out=$WORK/rust/$target/out
    rm -rf "$library" "$nothing" "$out"; mkdir -p "$library" "$nothing"; : > "$nothing/lib.rs"
    printf '[package]\nname = "nothing"\nedition = "2024"\n[lib]\npath = "lib.rs"\n[workspace]\n' > "$nothing/Cargo.toml"
    (cd "$nothing" && unset CARGO_ENCODED_RUSTFLAGS && RUSTC_BOOTSTRAP=1 RUSTFLAGS="-C embed-bitcode=yes" CARGO_TARGET_DIR="$out" \
        cargo build -q --release -Z build-std=std,panic_abort,panic_unwind,test --target "$target") || return 1
    rm -f "$out/$target/release/deps"/libnothing-*
    cp "$out/$target/release/deps"/*.rlib "$library" && rm -rf "$WORK/rust/$target" && touch "$library/.complete"
}

### The C compiler, the C library and the linker; sets $cargo, $verb and $triple

use_zig() {
    tools=$WORK/zig-$ZIG-$ZIGBUILD
    if [ ! -e "$tools/.complete" ]; then
        say "fetching ziglang $ZIG and cargo-zigbuild $ZIGBUILD from PyPI"
        python3 -m pip install -q --only-binary :all: --upgrade --target "$tools" "ziglang==$ZIG" "cargo-zigbuild==$ZIGBUILD" >&2 || return 1
        touch "$tools/.complete"
    fi
    export CARGO_ZIGBUILD_ZIG_PATH="$tools/ziglang/zig" CARGO_ZIGBUILD_CACHE_DIR="$tools/cache" ZIG_GLOBAL_CACHE_DIR="$tools/cache/zig"
    cargo=$tools/bin/cargo-zigbuild verb=$subcommand triple=$target
    [ "$subcommand" = build ] && verb=zigbuild
    case $target in *-gnu*) triple=$target.$GLIBC ;; esac
}

use_gcc() {
    [ -n "$gcc" ] && command -v "$gcc-gcc" >/dev/null || return 1
    upper=$(echo "$target" | tr a-z- A-Z_) lower=$(echo "$target" | tr - _)
    export "CARGO_TARGET_${upper}_LINKER=$gcc-gcc" "CC_$lower=$gcc-gcc" "AR_$lower=$gcc-ar"
    cargo=cargo verb=$subcommand triple=$target
}

need cargo python3 flock
case $rust in rustup|cross|debian) "use_$rust" "$@" ;; *) die "CROSS_RUST is $rust; rustup, cross and debian are known" ;; esac
lock zig
case ${CROSS_C:-any} in
    zig|gcc) "use_$CROSS_C" || die "$CROSS_C cannot be had for $target" ;;
    any) use_zig || use_gcc || die "no C compiler for $target: is python3-pip installed?" ;;
    *) die "CROSS_C is $CROSS_C; zig and gcc are known" ;;
esac
unlock

# Outside of the work tree, so that a fresh clone finds what another one has compiled; one each, so that two targets can be
# built at the same time.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$WORK/cross/$target}"
say "$target by $("${RUSTC:-rustc}" -V) ($rust)"
cd "$TOP" || exit
"$cargo" "$verb" --target "$triple" "$@"
built=$CARGO_TARGET_DIR/$target/release/myelin
[ -e "$built" ] || exit 0
case $subcommand in
    build) install -D "$built" "target/cross/$target/release/myelin" ;;
    rustc) install -D "$built" "target/cross/$target/rustc/myelin" ;;
esac

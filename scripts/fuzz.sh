#!/bin/sh
# Runs the fuzz targets of src/fuzzing.rs with libFuzzer, one after the other, and tells how often each was executed.
#
#   scripts/fuzz.sh [TARGET...]        (default: all)
#
#   FUZZ_RUNS   executions of each target (default: 1000000)
#
# The compiler is the usual one; only the instrumentation that libFuzzer needs is unstable. What is found on the way
# stays in fuzz/found, outside of the small corpus that is part of the sources.
# shellcheck disable=SC1091 # checked by itself
. "$(dirname "$0")/common.sh"
runs=${FUZZ_RUNS:-1000000}
cd "$TOP" || exit
need cargo c++
cargo fuzz --version >/dev/null 2>&1 || { say "installing cargo-fuzz"; cargo install -q --locked cargo-fuzz; }
export RUSTC_BOOTSTRAP=1
target=$(rustc -vV | awk '/^host:/ { print $2 }')
# The look at what is compared takes a fifth of the time or more, and the corpus has the words already.
options="--sanitizer none --no-trace-compares --target $target"
# The options are words on purpose.
# shellcheck disable=SC2086
cargo fuzz build $options
[ $# -ge 1 ] || for file in fuzz/fuzz_targets/*.rs; do set -- "$@" "$(basename "$file" .rs)"; done
for name in "$@"; do
    found=fuzz/found/$name log=fuzz/found/$name.log
    mkdir -p "$found"
    # shellcheck disable=SC2086
    if cargo fuzz run $options "$name" "$found" "fuzz/corpus/$name" -- \
        -runs="$runs" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 >"$log" 2>&1; then
        say "$name: $(awk '/number_of_executed_units/ { print $2 }' "$log") executions, nothing found"
    else
        tail -n 40 "$log"
        die "$name: a fault; the input is in fuzz/artifacts/$name"
    fi
done

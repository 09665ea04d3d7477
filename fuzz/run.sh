#!/usr/bin/env bash
# Builds every fuzz target on the stable compiler and runs them one after the other.
#
#   fuzz/run.sh SECONDS [TARGET...]      each for so many seconds
#   fuzz/run.sh runs INPUTS [TARGET...]  each for so many inputs, however long that takes
#
# Without names all targets run, and then the controls: targets that break a promise themselves, which must be found out.
# A crash fails; its input is kept under fuzz/artifacts, and the target's binary runs that alone when it is its argument.
# The committed corpus is only read. What a run finds is kept beside the build, and the next run begins with it.
set -euo pipefail
usage="usage: fuzz/run.sh SECONDS [TARGET...] or fuzz/run.sh runs INPUTS [TARGET...]"
case ${1:?$usage} in
    runs)
        limit=(-runs="${2:?$usage}")
        each="$2 inputs"
        shift 2
        ;;
    *)
        limit=(-max_total_time="$1")
        each="$1 s"
        shift
        ;;
esac
cd "$(dirname "$0")"

targets=("$@")
controls=()
if [ ${#targets[@]} -eq 0 ]; then
    targets=(
        addresses control_frames decode_context decode_hello decode_message dialect guard_words key_files lanes link
        outer_frames pairing preamble records registration rendezvous session_order trace_file websocket
    )
    controls=(lanes link records rendezvous session_order)
fi
triple=x86_64-unknown-linux-gnu

export RUSTC_BOOTSTRAP=1 RUSTC_WRAPPER=$PWD/rustc.sh
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/target}
cargo build --locked --target "$triple"
found=$CARGO_TARGET_DIR/corpus

# Golden bytes are seeds as they are: every message for the message target, the handshake's for its own.
mkdir -p "${targets[@]/#/$found/}" "${targets[@]/#/corpus/}"
for golden in ../messages/tests/golden/*.hex; do
    name=$(basename "$golden" .hex)
    case $name in
        hello | welcome) target=decode_hello ;;
        *) target=decode_message ;;
    esac
    mkdir -p "$found/$target"
    tr -d '\n' <"$golden" | sed 's/../\\x&/g' | xargs -0 printf '%b' >"$found/$target/golden-$name"
done

# Files that targets write: in memory where there is such a place.
scratch=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
trap 'rm -rf "$scratch"' EXIT
export DWELL_FUZZ_SCRATCH=$scratch

# Bytes of the longest input: scripts of operations are short, so that each of them counts.
longest() {
    case $1 in
        lanes | link | records | registration | rendezvous | session_order | websocket) echo 1024 ;;
        addresses | control_frames | pairing | preamble) echo 2048 ;;
        *) echo 8192 ;;
    esac
}

run() {
    local target=$1
    shift
    "$CARGO_TARGET_DIR/$triple/debug/$target" "$@" -timeout=10 -rss_limit_mb=1024 -max_len="$(longest "$target")" \
        -verbosity=0 -print_final_stats=1
}

for target in "${targets[@]}"; do
    echo "$target for $each"
    mkdir -p "artifacts/$target"
    run "$target" "$found/$target" "corpus/$target" -artifact_prefix="artifacts/$target/" "${limit[@]}"
done

for target in "${controls[@]}"; do
    echo "$target, breaking a promise: this must be found"
    if DWELL_FUZZ_CONTROL=1 run "$target" "$scratch" "corpus/$target" -artifact_prefix="$scratch/" -max_total_time=20 \
        2>"$scratch/control"; then
        cat "$scratch/control"
        echo "the target $target does not see a broken promise" >&2
        exit 1
    fi
    grep -a -m 1 'panicked at' "$scratch/control"
    rm -rf "${scratch:?}"/*
done

#!/usr/bin/env bash
# Builds every fuzz target on the stable compiler and runs each for so many seconds. A crash fails; its input is kept
# under fuzz/artifacts. The corpus starts from the golden bytes.
set -euo pipefail
seconds=${1:?usage: fuzz/run.sh SECONDS}
cd "$(dirname "$0")"

targets=(decode_message decode_context decode_hello)
triple=x86_64-unknown-linux-gnu

coverage=(-Cpasses=sancov-module)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    coverage+=("-Cllvm-args=-sanitizer-coverage-$option")
done
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="${coverage[*]} --cfg fuzzing"
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/target}
cargo build --locked --target "$triple"

# Seeds: every golden message for the message target, the handshake's for its own.
for golden in ../messages/tests/golden/*.hex; do
    name=$(basename "$golden" .hex)
    case $name in
        hello | welcome) target=decode_hello ;;
        *) target=decode_message ;;
    esac
    mkdir -p "corpus/$target"
    tr -d '\n' <"$golden" | sed 's/../\\x&/g' | xargs -0 printf '%b' >"corpus/$target/golden-$name"
done
mkdir -p corpus/decode_context
printf '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\ncongo=t61rcWkgMzE,rojo=00f067aa0ba902b7' \
    >corpus/decode_context/traceparent

for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    echo "$target for $seconds s"
    "$CARGO_TARGET_DIR/$triple/debug/$target" "corpus/$target" \
        -artifact_prefix="artifacts/$target/" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 \
        -max_len=8192 -verbosity=0 -print_final_stats=1
done

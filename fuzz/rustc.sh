#!/usr/bin/env bash
# What cargo calls in place of rustc: libFuzzer's instrumentation for dwell's own crates and for no others, so that
# cryptography runs at full speed and every new edge is one of ours. Generic code of others counts where we use it.
set -euo pipefail
rustc=$1
shift
case ${CARGO_PKG_NAME:-} in
    dwell-*)
        coverage=(-Cpasses=sancov-module --cfg fuzzing)
        for option in level=4 inline-8bit-counters pc-table trace-compares; do
            coverage+=("-Cllvm-args=-sanitizer-coverage-$option")
        done
        exec "$rustc" "$@" "${coverage[@]}"
        ;;
    *) exec "$rustc" "$@" ;;
esac

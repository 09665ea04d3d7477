#!/usr/bin/env bash
# Whoever embeds only the vocabulary gets neither an actor system nor a runtime. Checked on what cargo would build.
set -euo pipefail
cd "$(dirname "$0")/.."

# Fails when a crate's normal dependencies, with every feature on, hold a runtime.
check() {
    local tree
    tree=$(cargo tree --locked -p "$1" -e normal --all-features --prefix none --format '{p}')
    if ! grep -q "^$1 " <<<"$tree"; then
        echo "cargo tree did not list $1 itself: the check would see nothing" >&2
        return 2
    fi
    local found
    if found=$(grep -E '^(actix|tokio)[a-z_-]* ' <<<"$tree" | sort -u); then
        echo "$1 depends on:" >&2
        echo "$found" >&2
        return 1
    fi
}

check dwell-messages
# The positive control: on the crate that is made of actors the same check must fail, and for that reason.
status=0
check dwell-actors 2>/dev/null || status=$?
if [ "$status" != 1 ]; then
    echo "the check found no runtime in dwell-actors either (status $status): it proves nothing" >&2
    exit 1
fi
echo "dwell-messages depends on no actor system and no runtime"

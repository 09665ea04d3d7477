#!/usr/bin/env bash
# Instructions per message of the mailbox layer and of bare actix, by callgrind: each case runs N and 2N messages,
# and the difference is what N messages cost without start-up. Only the actors' own thread counts.
# `instructions.sh calls [N]`: instructions of one command, sampled and not, of all threads of harness and executor.
set -euo pipefail
cd "$(dirname "$0")/.."

what=mailbox
[ "${1:-}" = calls ] && what=roles && shift
messages=${1:-$([ "$what" = roles ] && echo 200 || echo 16384)}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

bench=$(cargo bench -p dwell-actors --bench "$what" --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"name":"'"$what"'".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[ -x "$bench" ] || { echo "the $what benchmark did not build: run cargo bench -p dwell-actors --no-run" >&2; exit 1; }

# Instructions of the main thread for case $1 and $2 messages.
count() {
    rm -f "$out"/run*
    valgrind --quiet --tool=callgrind --separate-threads=yes --callgrind-out-file="$out/run" \
        "$bench" --instructions "$1" "$2" >/dev/null 2>&1
    if [ "$what" = roles ]; then
        sed -n 's/^totals: //p' "$out"/run-* | awk '{ sum += $1 } END { print sum }'
    else
        sed -n 's/^\(totals\|summary\): //p' "$out/run-01" | head -1
    fi
}

# Instructions per message of case $1.
per_message() {
    local once twice
    once=$(count "$1" "$messages")
    twice=$(count "$1" $((2 * messages)))
    echo $(((twice - once) / messages))
}

row() {
    awk -v name="$1" -v ours="$2" -v bare="$3" -v budget="$4" 'BEGIN {
        ratio = ours / bare
        verdict = (budget != "" && ratio > budget) ? "  over" : ""
        printf "%-12s %12d %8.2f %8s%s\n", name, ours, ratio, budget, verdict
    }'
}

printf '%-12s %12s %8s %8s\n' case instructions ratio budget
if [ "$what" = roles ]; then
    bare=$(per_message unsampled)
    row unsampled "$bare" "$bare" ""
    row sampled "$(per_message sampled)" "$bare" 1.05
    exit
fi
bare=$(per_message bare-tell)
row bare-tell "$bare" "$bare" ""
row unsampled "$(per_message unsampled)" "$bare" 1.4
row sampled "$(per_message sampled)" "$bare" 1.9
bare=$(per_message bare-ask)
row bare-ask "$bare" "$bare" ""
row ask "$(per_message ask)" "$bare" 1.3

#!/usr/bin/env bash
# Instructions per message of the mailbox layer and of bare actix, by callgrind: each case runs N and 2N messages,
# and the difference is what N messages cost without start-up. Only the actors' own thread counts.
# `instructions.sh calls [N]`: instructions of one command, sampled and not, of all threads of harness and executor but
# the collectors', which nobody waits for; those stand below.
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

# Instructions of the main thread for case $1 and $2 messages; of commands, those of the threads that $3 says.
count() {
    rm -f "$out"/run*
    valgrind --quiet --tool=callgrind --separate-threads=yes --callgrind-out-file="$out/run" \
        "$bench" --instructions "$1" "$2" >/dev/null 2>&1
    if [ "$what" = roles ]; then
        # A collector's thread is the one that collects.
        local collectors=$3
        for thread in "$out"/run-*; do
            grep -q 'collector::Core::collect' "$thread" && of=collectors || of=calls
            [ "$of" = "$collectors" ] && sed -n 's/^totals: //p' "$thread"
        done | awk '{ sum += $1 } END { print sum }'
    else
        sed -n 's/^\(totals\|summary\): //p' "$out/run-01" | head -1
    fi
}

# Instructions per message of case $1; of a command by the threads that $2 says.
per_message() {
    local once twice
    once=$(count "$1" "$messages" "${2:-}")
    twice=$(count "$1" $((2 * messages)) "${2:-}")
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
    bare=$(per_message unsampled calls)
    row unsampled "$bare" "$bare" ""
    row sampled "$(per_message sampled calls)" "$bare" 1.05
    row collectors "$(per_message sampled collectors)" "$bare" ""
    exit
fi
bare=$(per_message bare-tell)
row bare-tell "$bare" "$bare" ""
row unsampled "$(per_message unsampled)" "$bare" 1.4
row sampled "$(per_message sampled)" "$bare" 1.9
bare=$(per_message bare-ask)
row bare-ask "$bare" "$bare" ""
row ask "$(per_message ask)" "$bare" 1.3

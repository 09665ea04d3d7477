#!/usr/bin/env bash
# Every test that SEMANTICS.md and docs/guarantees.md name exists, and every sentence of their lists names one.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
existing="$(git ls-files -z -- '*.rs' | xargs -0 grep -hoE '\bfn [a-z0-9_]+' | cut -d' ' -f2 | sort -u)"

for page in SEMANTICS.md docs/guarantees.md; do
  # A name in backquotes with two underscores or more is a test.
  named="$(grep -oE '`[a-z0-9]+(_[a-z0-9]+){2,}`' "$page" | tr -d '`' | sort -u)" || true
  if [ -z "$named" ]; then
    echo "$page names no test" >&2
    failed=1
    continue
  fi
  while read -r name; do
    if ! grep -qxF "$name" <<<"$existing"; then
      echo "$page names the test $name, which does not exist" >&2
      failed=1
    fi
  done <<<"$named"

  # A list item runs from its dash to the next one, or to an empty line.
  if ! awk -v page="$page" '
    function flush() {
      if (item != "" && item !~ /`[a-z0-9]+_[a-z0-9]+_[a-z0-9_]+`/) {
        print page " has a sentence without a test: " item > "/dev/stderr"
        bad = 1
      }
      item = ""
    }
    /^- / { flush(); item = $0; next }
    /^$/ || /^#/ { flush(); next }
    item != "" { item = item " " $0 }
    END { flush(); exit bad }
  ' "$page"; then
    failed=1
  fi
done
exit "$failed"

#!/bin/sh
# Run the given test programs and sum their counts into the one closing line that CI reads.
passed=0 failed=0 skipped=0
count() { sed -n "s/^ *\([0-9][0-9]*\) $1 TEST(S).*/\1/p" "$2" | awk '{s += $1} END {print s + 0}'; }
for t in "$@"; do
    log=$t.log
    "$t" >"$log" 2>&1; rc=$?
    ok=$(grep -c '^\[       OK \]' "$log")
    no=$(count FAILED "$log")
    if [ $rc -ne 0 ]; then
        cat "$log"
        [ "$no" -eq 0 ] && no=1 # a crash counts too
    fi
    echo "$(basename "$t"): $ok passed, $no failed"
    passed=$((passed + ok)) failed=$((failed + no)) skipped=$((skipped + $(count SKIPPED "$log")))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]

#!/bin/sh
# Runs the given test programs and sums their counts into one closing line.
# A program that crashes, hangs or ends badly without naming a failed test counts as one failure.
# Under a sanitizer, a test that asks for too much memory must get NULL as elsewhere.
export ASAN_OPTIONS="${ASAN_OPTIONS:-allocator_may_return_null=1}"
passed=0 failed=0 skipped=0
count() { sed -n "s/^ *\([0-9][0-9]*\) $1 TEST(S).*/\1/p" "$2" | awk '{s += $1} END {print s + 0}'; }
for t in "$@"; do
    log=$t.log
    timeout -k 5 "${TEST_SECONDS:-300}" "$t" >"$log" 2>&1
    rc=$?
    ok=$(grep -c '^\[       OK \]' "$log")
    no=$(count FAILED "$log")
    if [ $rc -ne 0 ]; then
        cat "$log"
        [ $rc -eq 124 ] && echo "$t: still running after ${TEST_SECONDS:-300} s"
        [ "$no" -eq 0 ] && no=1
    fi
    skip=$(count SKIPPED "$log")
    echo "$(basename "$t"): $ok passed, $no failed$([ "$skip" -eq 0 ] || echo ", $skip skipped")"
    passed=$((passed + ok)) failed=$((failed + no)) skipped=$((skipped + skip))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]

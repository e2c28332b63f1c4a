#!/bin/sh
# Runs each fuzzing program FUZZ_SECONDS (60); what it finds lies in build/fuzz/found/.
seconds=${FUZZ_SECONDS:-60}
found=build/fuzz/found
mkdir -p "$found"
passed=0 failed=0
[ $# -gt 0 ] || { echo "tests/fuzz holds no fuzz_*.c" >&2; exit 1; }
for f in "$@"; do
    name=$(basename "$f")
    corpus=build/fuzz/corpus/$name
    mkdir -p "$corpus"
    seeds=tests/fuzz/corpus/${name#fuzz_}
    [ -d "$seeds" ] || seeds=
    # shellcheck disable=SC2086 # $seeds is empty or one word
    if "$f" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$found/$name-" "$corpus" $seeds >"$found/$name.log" 2>&1; then
        passed=$((passed + 1))
        echo "$name: $(sed -n 's/stat::number_of_executed_units: *//p' "$found/$name.log") runs, nothing found"
    else
        failed=$((failed + 1))
        tail -n 40 "$found/$name.log"
        echo "$name: failed, see $found/$name.log"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

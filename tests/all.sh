#!/bin/sh
# Runs every suite and sums their closing lines: all.sh UNIT-TEST-PROGRAM...
# A suite is a command whose last line starts "N passed, N failed". One that prints no such line,
# or ends badly without a failed test, counts as one failure: nothing is passed over in silence.
# B: the build folder (build/release). ONLY="unit http": just those suites.
B=${B:-build/release}
export B
logs=$B/tests/logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0 summary=

number() { echo "$1" | sed -n "s/.*\b\([0-9][0-9]*\) $2.*/\1/p"; }

suite() { # NAME COMMAND...
    name=$1
    shift
    case " ${ONLY:-$name} " in *" $name "*) ;; *) return ;; esac
    echo "== $name"
    start=$(date +%s)
    { timeout -k 10 "${SUITE_SECONDS:-900}" "$@" </dev/null 2>&1; echo $? >"$logs/$name.rc"; } |
        tee "$logs/$name.log"
    rc=$(cat "$logs/$name.rc")
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$logs/$name.log" | tail -n 1)
    ok=$(number "$line" passed) no=$(number "$line" failed) skip=$(number "$line" skipped)
    ok=${ok:-0} no=${no:-0} skip=${skip:-0}
    if [ -z "$line" ] || { [ "$rc" -ne 0 ] && [ "$no" -eq 0 ]; }; then
        echo "$name: ended with status $rc and no count of failures"
        no=$((no + 1))
    fi
    passed=$((passed + ok)) failed=$((failed + no)) skipped=$((skipped + skip))
    summary="$summary$(printf '  %-8s %5d passed, %d failed, %d skipped, %d s' "$name" "$ok" "$no" \
        "$skip" $(($(date +%s) - start)))
"
}

suite unit tests/run.sh "$@"
suite lint tests/lint/run.sh
suite convert python3 tests/models/test_convert.py
suite golden "$B/tests/golden/replay" tests/golden
suite golden16 "$B/tests/golden/replay" --weights bf16 tests/golden/masked-diffusion
suite cli tests/server/test_cli.sh
suite readme tests/server/test_readme.sh
suite http tests/http/run.sh
suite web tests/web/run.sh

echo "== all"
printf '%s' "$summary"
line="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ]

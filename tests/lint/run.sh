#!/bin/sh
# Every check of the sources that needs no compiler, and the checks of those checks.
# CPPCHECK=1: cppcheck too, when it is installed (not part of the counts).
here=$(dirname "$0")
passed=0 failed=0
take() { # COMMAND: print what it says, add its counts
    out=$("$@")
    echo "$out" | sed '$d' | sed '/^$/d'
    line=$(echo "$out" | tail -n 1)
    echo "$(basename "$1"): $line"
    passed=$((passed + $(echo "$line" | sed -n 's/^\([0-9]*\) passed.*/\1/p')))
    failed=$((failed + $(echo "$line" | sed -n 's/.* \([0-9]*\) failed.*/\1/p')))
}
take "$here/test_lint.sh"
take "$here/includes.sh"
take "$here/form.sh"
if [ "${CPPCHECK:-}" = 1 ]; then
    if command -v cppcheck >/dev/null 2>&1; then
        cppcheck --quiet --std=c11 -D_GNU_SOURCE -I. --inline-suppr --enable=warning,portability \
            --suppress=missingIncludeSystem --suppress=invalidPointerCast \
            --suppress=internalAstError kernels models tokenizers samplers server
    else
        echo "cppcheck is not installed: left out"
    fi
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

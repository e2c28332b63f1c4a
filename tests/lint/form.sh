#!/bin/sh
# Form of the sources: form.sh [ROOT]. Lines of at most 100 columns, no tabs or blanks at line ends,
# a comment that says what the file is, include guards, no notes to self, no function over 90 lines.
cd "${1:-.}" || exit 1
files=$(find kernels models tokenizers samplers server tests \( -name '*.[ch]' -o -name '*.cu' \
    -o -name '*.cuh' \) 2>/dev/null |
    grep -v node_modules | LC_ALL=C sort)
[ -n "$files" ] || { echo "no sources here"; echo "0 passed, 1 failed"; exit 1; }
# shellcheck disable=SC2086 # a list of files
LC_ALL=C awk '
function bad(why) { print FILENAME ":" FNR ": " why; broken[FILENAME] = 1 }
FNR == 1 {
    checked++
    start = 0
    if ($0 !~ /^\/\*/) bad("the first line is not a comment that says what this file is")
}
{
    wide = $0
    gsub(/[\200-\277]/, "", wide) # a character of UTF-8 is one column
    if (length(wide) > 100) bad("line of " length(wide) " columns, 100 at most")
    if (/[ \t]$/) bad("blanks at the end of the line")
    if (/\t/) bad("a tab")
    if (/\/[\/*].*(TODO|FIXME|XXX)/) bad("a note to self: finish it or drop it")
}
/^\{/ { start = FNR }
/^\}/ {
    if (start && FNR - start > 90) bad("a function of " FNR - start " lines, 90 at most")
    start = 0
}
/^#(ifndef|define|endif|pragma once)/ && FILENAME ~ /\.(h|cuh)$/ { has[FILENAME] = 1 }
END {
    for (i = 1; i < ARGC; i++)
        if (ARGV[i] ~ /\.(h|cuh)$/ && !has[ARGV[i]]) {
            print ARGV[i] ": no include guard"
            broken[ARGV[i]] = 1
        }
    failed = 0
    for (f in broken) failed++
    print checked - failed " passed, " failed " failed"
    exit failed > 0
}' $files

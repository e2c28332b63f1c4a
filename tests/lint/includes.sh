#!/bin/sh
# Who may include whom: includes.sh [ROOT]. Prints one line per violation, then the counts.
#
#   kernels/base <- kernels <- models <- tokenizers <- samplers <- server
#
# A folder may use what stands left of it. X/part/ belongs to X: others use X/*.h (the exception is
# models/nn for tokenizers/image). Libraries are kept to the folder that wraps them. tests/ are free.
cd "${1:-.}" || exit 1
files=$(find kernels models tokenizers samplers server -name '*.[ch]' -o -name '*.cu' 2>/dev/null |
    LC_ALL=C sort)
[ -n "$files" ] || { echo "no sources here"; echo "0 passed, 1 failed"; exit 1; }
# shellcheck disable=SC2086 # a list of files
LC_ALL=C awk '
function layer(path) {
    if (path ~ /^kernels\/base\//) return 1
    if (path ~ /^kernels\//) return 2
    if (path ~ /^models\//) return 3
    if (path ~ /^tokenizers\//) return 4
    if (path ~ /^samplers\//) return 5
    if (path ~ /^server\//) return 6
    return 0
}
function top(path) { sub(/\/.*/, "", path); return path }
function folder(path) { sub(/\/[^\/]*$/, "", path); return path }
function bad(why) { print FILENAME ":" FNR ": " why; broken[FILENAME] = 1 }

function project_include(name,   from, to) {
    from = layer(FILENAME); to = layer(name)
    if (!to) { bad("\"" name "\" is not a path from the root of the tree"); return }
    if ((getline line < name) < 0) bad("\"" name "\" does not exist")
    close(name)
    if (to > from) bad("\"" name "\" lies above " folder(FILENAME))
    if (top(name) != top(FILENAME) && name ~ /^[a-z]+\/.*\// && name !~ /^kernels\/base\// &&
        !(name ~ /^models\/nn\// && FILENAME ~ /^tokenizers\/image\//))
        bad("\"" name "\" is a part of " top(name) ", used from outside")
    if (FILENAME ~ /^tokenizers\/text\// && name ~ /^models\//)
        bad("text tokenizers know no models")
    if (FILENAME ~ /^models\// && name ~ /^(tokenizers|samplers)\//)
        bad("models know ids, not texts or samplers")
    if (FILENAME ~ /^samplers\// && name ~ /^tokenizers\// &&
        FILENAME !~ /^samplers\/(search|verify)\//)
        bad("only samplers/search and samplers/verify decode text")
    if (FILENAME ~ /^kernels\/(cuda|onednn)\// && folder(name) != folder(FILENAME) &&
        name !~ /^kernels\/(backend|ops|tensor)\.h$/ && name !~ /^kernels\/base\//)
        bad("a plug-in sees backend.h, ops.h, tensor.h and kernels/base only")
}

function only(name, where) { if (FILENAME !~ where) bad("<" name "> is not for " folder(FILENAME)) }

function system_include(name) {
    if (name ~ /^(microhttpd|png|argp)\.h$/) only(name, "^server/")
    if (name ~ /^cjson\//) only(name, "^(server/|models/config|models/weights|tokenizers/)")
    if (name ~ /^(pcre2|utf8proc)/) only(name, "^tokenizers/text/")
    if (name ~ /^(dnnl|oneapi)/) only(name, "^kernels/onednn/")
    if (name ~ /^(cuda|cublas|curand|nv)/) only(name, "^kernels/cuda/")
}

FNR == 1 { checked++ }
/^[ \t]*#[ \t]*include[ \t]*"/ { split($0, part, "\""); project_include(part[2]) }
/^[ \t]*#[ \t]*include[ \t]*</ { split($0, part, /[<>]/); system_include(part[2]) }

END {
    failed = 0
    for (f in broken) failed++
    print checked - failed " passed, " failed " failed"
    exit failed > 0
}' $files

#!/bin/sh
# The lint must see what it is for: a small tree with one violation at a time.
here=$(cd "$(dirname "$0")" && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
passed=0 failed=0

fresh() {
    rm -rf "$tree" && mkdir -p "$tree/kernels/base" "$tree/kernels/cpu" "$tree/models/nn" \
        "$tree/tokenizers/text" "$tree/samplers/masked" "$tree/server/http" "$tree/kernels/onednn"
    for h in kernels/base/err kernels/tensor kernels/backend kernels/cpu/cpu models/model models/nn/linear \
        tokenizers/text tokenizers/text/bpe samplers/sampler server/engine; do
        printf '/* %s */\n#ifndef X\n#define X\n#endif\n' "$h" >"$tree/$h.h"
    done
}
expect() { # SCRIPT FAILED FILE TEXT...: the tree with FILE, its first line a comment, must give FAILED
    script=$1 want=$2 file=$3
    shift 3
    fresh
    printf '/* test */\n' >"$tree/$file"
    printf '%b\n' "$@" >>"$tree/$file"
    out=$("$here/$script" "$tree")
    if echo "$out" | tail -n 1 | grep -q " $want failed\$"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$script, $file with '$*', expected $want failed:"
        echo "$out"
    fi
}
inc() { want=$1 file=$2 name=$3; expect includes.sh "$want" "$file" "#include $name"; }

inc 0 server/a.c '"samplers/sampler.h"'
inc 0 server/a.c '<argp.h>'
inc 0 tokenizers/a.c '"tokenizers/text/bpe.h"'
inc 1 models/a.c '"samplers/sampler.h"'
inc 1 models/a.c '"tokenizers/text.h"'
inc 1 kernels/base/a.c '"kernels/tensor.h"'
inc 1 kernels/a.c '"models/model.h"'
inc 1 tokenizers/text/a.c '"models/model.h"'
inc 1 samplers/a.c '"tokenizers/text.h"'
inc 1 samplers/a.c '"server/engine.h"'
inc 1 server/a.c '"tokenizers/text/bpe.h"'
inc 1 server/a.c '"kernels/cpu/cpu.h"'
inc 1 tokenizers/a.c '"models/nn/linear.h"'
inc 1 server/a.c '"engine.h"'
inc 1 server/a.c '"server/absent.h"'
inc 1 models/a.c '<argp.h>'
inc 1 server/a.c '<pcre2.h>'
inc 1 kernels/cpu/a.c '<dnnl.h>'
inc 1 samplers/a.c '<cjson/cJSON.h>'
inc 1 kernels/onednn/a.c '"kernels/cpu/cpu.h"'
inc 0 kernels/onednn/a.c '"kernels/backend.h"'

long=$(printf '%0101d' 0)
expect form.sh 0 server/a.c 'int a;'
expect form.sh 1 server/a.c "$long"
expect form.sh 0 server/a.c "$(printf 'char a[] = "%s";' "$(printf '\303\244%.0s' $(seq 85))")"
expect form.sh 1 server/a.c 'int a; '
expect form.sh 1 server/a.c '\tint a;'
expect form.sh 1 server/a.c '/* TO''DO later */'
expect form.sh 1 server/a.h 'int a;'
expect form.sh 1 server/a.c 'void f(void)\n{' "$(seq -f '    g(%g);' 95)" '}'
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

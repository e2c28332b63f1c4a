#!/bin/sh
# Runs what README.md shows and compares: the server is started by `make run`, every line after a $
# of a console block is run, its output must be what stands below it.
#   test_readme.sh          the test
#   test_readme.sh --write  puts the real output into README.md
# What differs from run to run (ids, times) or grows (the list of parameters) is compared as N.
cd "$(dirname "$0")/../.." || exit 1
dir=$(mktemp -d)
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null; rm -rf "$dir"' EXIT
fail() { echo "$1"; echo "0 passed, 1 failed"; exit 1; }

make run ARGS='--port 0' >"$dir/server.log" 2>&1 </dev/null &
server=$!
for _ in $(seq 600); do
    grep -q '^ready' "$dir/server.log" && break
    kill -0 $server 2>/dev/null || break
    sleep 0.1
done
url=$(grep -o 'http://127\.0\.0\.1:[0-9]*' "$dir/server.log" | head -n 1)
grep -q '^ready' "$dir/server.log" || { cat "$dir/server.log"; fail "make run did not come up"; }
PATH=$PWD/${B:-build/release}:$PATH
export PATH

# blocks: $dir/1.cmd, $dir/1.want, ... in order of appearance
awk -v dir="$dir" '
/^```console/ { inside = 1; next }
/^```/ { inside = 0 }
!inside { next }
/^\$ / { n++; cmd = dir "/" n ".cmd"; want = dir "/" n ".want"; printf "" >want
         print substr($0, 3) >cmd; next }
/^> / { print substr($0, 3) >cmd; next }
{ print >want }
END { print n + 0 >(dir "/count") }' README.md

normal() {
    sed -E -e 's/"(id|system_fingerprint|digest)":"[^"]*"/"\1":"N"/g' \
        -e 's/"parameters":\{[^}]*\}/"parameters":N/' -e 's/"(created|[a-z]+_ms)":[0-9.e+-]+/"\1":N/g' -e 's/[0-9.]+ ms/N ms/g' "$1"
}

passed=0 failed=0
count=$(cat "$dir/count")
[ "$count" -ge 2 ] || fail "README.md shows only $count commands"
for i in $(seq "$count"); do
    sed "s#http://127.0.0.1:8080#$url#g" "$dir/$i.cmd" >"$dir/$i.run"
    (cd "$dir" && sh "$i.run" >"$i.have" 2>"$i.err" </dev/null) # files it makes go with the folder
    [ -z "$(tail -c 1 "$dir/$i.have")" ] || echo >>"$dir/$i.have"
    normal "$dir/$i.want" >"$dir/$i.want.n"
    normal "$dir/$i.have" >"$dir/$i.have.n"
    if cmp -s "$dir/$i.want.n" "$dir/$i.have.n"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL $(head -n 1 "$dir/$i.cmd")"
        diff "$dir/$i.want.n" "$dir/$i.have.n"
        cat "$dir/$i.err"
    fi
done

if [ "${1:-}" = --write ]; then
    awk -v dir="$dir" '
    function flush_output(   line) {
        if (!n) return
        while ((getline line <(dir "/" n ".have")) > 0) print line
    }
    /^```console/ { inside = 1; print; next }
    inside && /^```/ { flush_output(); inside = 0; pending = 0; print; next }
    inside && /^\$ / { if (pending) flush_output(); n++; pending = 1; print; next }
    inside && /^> / { print; next }
    inside { next }
    { print }' README.md >"$dir/README.md" && cp "$dir/README.md" README.md
    echo "README.md now shows what the program says"
fi

# The map must name the folders there are.
for d in kernels models tokenizers samplers server web tests; do
    if grep -q "^| \`$d/\` |" README.md && [ -d "$d" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL README.md and the tree disagree about $d/"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

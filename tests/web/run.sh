#!/bin/sh
# The demo page in a browser: starts the server on a free port and runs test_page.mjs against it.
# Ends with "N passed, N failed"; a missing browser or package is a failure, named.
cd "$(dirname "$0")/../.." || exit 1
program=${B:-build/release}/tutti
fail() { echo "$1"; echo "0 passed, 1 failed"; exit 1; }

[ -x "$program" ] || fail "$program is not built: run make"
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
    fail "no chromium here: apt-get install chromium"
command -v npm >/dev/null 2>&1 || fail "no npm here: apt-get install npm"
if [ ! -d tests/web/node_modules/playwright-core ]; then
    (cd tests/web && npm ci --no-audit --no-fund --loglevel=error) ||
        fail "npm ci in tests/web did not succeed"
fi

mkdir -p build/web
servers=
trap 'kill $servers 2>/dev/null; wait $servers 2>/dev/null' EXIT
start() { # LOG OPTION...: sets url
    log=$1
    shift
    : >"$log"
    "$program" serve --port 0 "$@" >"$log" 2>&1 &
    servers="$servers $!"
    url=
    for _ in $(seq 300); do
        url=$(grep -o 'http://127\.0\.0\.1:[0-9]*' "$log" | head -n 1)
        [ -z "$url" ] || return
        kill -0 $! 2>/dev/null || break
        sleep 0.1
    done
    cat "$log"
    fail 'the server did not start'
}
start build/web/locked.log --api-key secret
locked=$url
start build/web/insertion.log --model tests/golden/insertion-lm/model_stopping
inserting=$url
start build/web/depth.log --model tests/golden/recurrent-depth/model
depth=$url
start build/web/server.log

URL=$url LOCKED=$locked INSERTING=$inserting DEPTH=$depth BROWSER=$browser OUT=build/web \
    timeout -k 5 300 \
    node tests/web/test_page.mjs

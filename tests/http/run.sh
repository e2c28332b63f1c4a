#!/bin/bash
# The server as a process: curl's ways of asking, signals, limits; then the official client.
# Ends with "N passed, N failed".
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build/release}
log=$B/tests/logs/http-server.log
mkdir -p "$B/tests/logs"
scratch=$(mktemp -d)
. tests/http/serve.sh
pid=
trap '[ -z "$pid" ] || kill $pid 2>/dev/null; rm -rf "$scratch"' EXIT
passed=0 failed=0

ok() { passed=$((passed + 1)); }
no() { failed=$((failed + 1)); echo "FAILED: $*"; }
is() { # WHAT HAVE WANT
    if [ "$2" = "$3" ]; then ok; else no "$1: have '$2', want '$3'"; fi
}
has() { # WHAT TEXT PATTERN
    if printf '%s' "$2" | grep -qE -- "$3"; then ok; else no "$1: '$3' is not in: ${2:0:600}"; fi
}
post() { # PATH BODY [CURL OPTION...]
    local path=$1 body=$2
    shift 2
    curl -sS -m 60 "$url$path" -H 'Content-Type: application/json' -d "$body" "$@"
}
status() { curl -sS -m 60 -o /dev/null -w '%{http_code}' "$@"; }

if ! [ -x "$program" ]; then
    echo "$program is not built: run make"
    echo "0 passed, 1 failed"
    exit 1
fi

text=models/demo/tutti-text
ask='{"model":"tutti-text","prompt":"Once upon a time","max_tokens":8'
long='{"model":"tutti-text","prompt":"x","max_tokens":400'
# a second or so on its own, and it cannot end early
busy='{"model":"tutti-text","prompt":"x","max_tokens":72,"tutti":{"logits_eos_inf":true}'

# --- a plain server ---

start --model tutti-text --model "org/other=$text" --max-running 8 --max-queue 4 || {
    echo "the server did not start"; echo "0 passed, 1 failed"; exit 1; }

is 'health' "$(status "$url/health")" 200
is 'live' "$(status "$url/v1/health/live")" 200
is 'ready' "$(status "$url/v1/health/ready")" 200
has 'page' "$(curl -sS "$url/")" '<title>'
has 'version' "$(curl -sS "$url/version")" '"version":"[0-9.]+"'
has 'id with a slash' "$(curl -sS "$url/v1/models/org%2Fother")" '"id":"org/other"'

# the request shown at the start works as printed
command=$(sed -n '/^  curl /,/^$/p' "$log")
has 'the example of the start' "$(eval "$command -sS")" '"object":"text_completion"'

answer=$(post /v1/completions "$ask}")
has 'completion' "$answer" '"finish_reason":"(stop|length)"'
is 'HTTP/1.0 gets the same object' \
    "$(post /v1/completions "$ask,\"seed\":1}" --http1.0 | grep -c text_completion)" 1
is 'curl -N sees the end' \
    "$(post /v1/completions "$ask,\"stream\":true}" -N | tail -n 2 | head -n 1)" 'data: [DONE]'
is 'a stream over HTTP/1.0 ends by itself' \
    "$(post /v1/completions "$ask,\"stream\":true}" -N --http1.0 | tail -n 2 | head -n 1)" 'data: [DONE]'

# the first draft comes long before the end
first=$(post /v1/completions "$long,\"diffusing\":true}" -N 2>/dev/null | head -n 1)
has 'snapshots begin at once' "$first" 'diffusion_progress'

# a body of more than 1 MB makes curl ask first (Expect: 100-continue)
{ printf '%s,"user":"' "$ask"; head -c 1500000 /dev/zero | tr '\0' u; printf '"}'; } >"$scratch/big"
is 'large body' "$(status "$url/v1/completions" -H 'Content-Type: application/json' \
    --data-binary "@$scratch/big")" 200
is 'large body in chunks' "$(status "$url/v1/completions" -H 'Content-Type: application/json' \
    -H 'Transfer-Encoding: chunked' --data-binary "@$scratch/big")" 200
is 'large body, no asking' "$(status "$url/v1/completions" -H 'Content-Type: application/json' \
    -H 'Expect:' --data-binary "@$scratch/big")" 200
head -c 5000000 /dev/zero | tr '\0' ' ' >"$scratch/huge"
is 'too large' "$(status "$url/v1/completions" -H 'Content-Type: application/json' \
    --data-binary "@$scratch/huge")" 413
sent=$(curl -sS -o /dev/null -w '%{size_upload}' "$url/v1/completions" \
    -H 'Content-Type: application/json' --data-binary "@$scratch/huge")
is 'a refused body is not uploaded' "$sent" 0
is 'form instead of JSON' "$(status "$url/v1/completions" -d 'a=b')" 415
is 'slow client' "$(status "$url/v1/completions" -H 'Content-Type: application/json' \
    --limit-rate 200 -d "$ask}")" 200

# a client that leaves frees its place
number() { curl -sS "$url/metrics" | sed -n "s/^$1 //p"; }
running() { number tutti_sequences_running; }
for _ in $(seq 40); do [ "$(running)" = 0 ] && break; sleep 0.025; done
before=$(number 'tutti_cancelled_total{reason="client"}')
post /v1/completions "$long}" -m 0.3 >"$scratch/left" 2>&1
for _ in $(seq 40); do [ "$(running)" = 0 ] && break; sleep 0.025; done
is 'nothing runs after the client left' "$(running)" 0
is 'and it was counted' "$(number 'tutti_cancelled_total{reason="client"}')" "$((before + 1))"

# more than 8 running and 4 waiting: the rest are told to come back
for i in $(seq 30); do
    post /v1/completions "$busy,\"seed\":$i}" -D "$scratch/h$i" -o "$scratch/b$i" -m 120 &
    jobs_[i]=$!
done
wait "${jobs_[@]}"
full=$(grep -l '^HTTP/1.1 429' "$scratch"/h* | head -n 1)
if [ -n "$full" ]; then
    ok
    has '429 names a time' "$(cat "$full")" 'retry-after-ms: [0-9]+'
    has '429 names the reason' "$(cat "${full/\/h//b}")" '"code":"queue_full"'
else
    no '30 requests for 12 places: nobody was refused'
fi
is 'the others were answered' "$(grep -l '^HTTP/1.1 200' "$scratch"/h* | wc -l)" \
    "$((30 - $(grep -l '^HTTP/1.1 429' "$scratch"/h* | wc -l)))"

# shutdown with a stream and a waiting request: both finish, then the process ends well
post /v1/completions "$ask,\"stream\":true}" -N >"$scratch/s1" &
s1=$!
post /v1/completions "$ask}" >"$scratch/s2" &
s2=$!
sleep 0.05
stop TERM
wait $s1 $s2
is 'exit status after SIGTERM' "$rc" 0
has 'the stream was finished' "$(cat "$scratch/s1")" 'data: \[DONE\]'
has 'the request was answered' "$(cat "$scratch/s2")" '"object":"text_completion"'

# --- images ---

start --model tutti-image --model tutti-text --max-body 100000 --max-upload 200000 || no 'a server of images'
make='{"prompt":"","seed":1'
command=$(sed -n '/^  curl /,/^$/p' "$log")
has 'the example of the start' "$(eval "$command -sS")" '"b64_json":"iVBOR'
picture() { sed -n 's/.*"b64_json":"\([^"]*\)".*/\1/p' | base64 -d; }
post /v1/images/generations "$make}" | picture >"$scratch/a.png"
is 'a PNG' "$(head -c 8 "$scratch/a.png" | od -An -tx1 | tr -d ' ')" 89504e470d0a1a0a
has 'a form' "$(curl -sS -m 60 "$url/v1/images/variations" -F "image=@$scratch/a.png" \
    -F 'tutti[strength]=0.5' -F 'tutti[steps]=2')" '"steps":2'
has 'a form of tokens' "$(curl -sS -m 60 "$url/v1/images/tokenize" -F "image=@$scratch/a.png")" \
    '"tokens":\[[0-9,]+\]'
is 'no form where there is no file' "$(status "$url/v1/images/generations" -F prompt=)" 415
head -c 300000 /dev/zero >"$scratch/huge"
sent=$(curl -sS -o /dev/null -w '%{http_code} %{size_upload}' "$url/v1/images/edits" \
    -H 'Expect: 100-continue' -F "image=@$scratch/huge")
is 'a picture that is too large is not uploaded' "$sent" '413 0'
has 'a stream' "$(post /v1/images/generations "$make,\"stream\":true,\"partial_images\":1}" -N)" \
    'event: image_generation.completed'
# texts while images are made: nobody waits for all of the other
curl -sS -m 300 "$url/v1/images/generations" -H 'Content-Type: application/json' \
    -d '{"prompt":"","n":64,"tutti":{"steps":64}}' -o "$scratch/many" &
many=$!
for _ in $(seq 100); do [ "$(running)" -gt 8 ] && break; sleep 0.02; done
has 'a text beside 64 images' "$(post /v1/completions "$ask}")" '"finish_reason"'
if kill -0 $many 2>/dev/null; then ok; else no 'the images were over before the text'; fi
kill $many
for _ in $(seq 100); do [ "$(running)" = 0 ] && break; sleep 0.025; done
is 'no image is made for a client that left' "$(running)" 0
is 'and their memory is free' "$(number tutti_jobs_bytes)" 0
stop
is 'exit status of the server of images' "$rc" 0

# --- stopping at once ---

start --model tutti-text --drain-seconds 0 || no 'second start'
for i in 1 2 3 4; do
    post /v1/completions "$long,\"stream\":$([ $((i % 2)) = 0 ] && echo true || echo false)}" -N \
        >"$scratch/x$i" &
    jobs_[i]=$!
done
sleep 0.3
stop INT
wait "${jobs_[@]:1:4}"
is 'exit status after SIGINT' "$rc" 0
for i in 1 2 3 4; do
    has "client $i was told" "$(cat "$scratch/x$i")" '"code":"shutting_down"'
done

# --- 200 streams ---

start --model tutti-text --max-queue 300 || no 'third start'
for i in $(seq 200); do
    post /v1/completions "$ask,\"seed\":$i,\"stream\":true}" -N -m 200 >"$scratch/t$i" &
    jobs_[i]=$!
done
wait "${jobs_[@]:1:200}"
is '200 streams arrive complete' "$(grep -l 'data: \[DONE\]' "$scratch"/t* | wc -l)" 200
stop

# --- keys, then the official client ---

echo 'file-key' >"$scratch/keys"
start --model tutti-text --model tutti-image --model "org/other=$text" --api-key first --api-key-file "$scratch/keys" ||
    no 'fourth start'
is 'without a key' "$(status "$url/v1/models")" 401
is 'health needs none' "$(status "$url/health")" 200
is 'with a key' "$(status "$url/v1/models" -H 'Authorization: Bearer first')" 200
is 'with a key of the file' "$(status "$url/v1/models" -H 'Authorization: Bearer file-key')" 200
echo 'new-key' >"$scratch/keys"
kill -HUP "$pid"
for _ in $(seq 40); do
    [ "$(status "$url/v1/models" -H 'Authorization: Bearer new-key')" = 200 ] && break
    sleep 0.05
done
is 'new key after SIGHUP' "$(status "$url/v1/models" -H 'Authorization: Bearer new-key')" 200
is 'old key after SIGHUP' "$(status "$url/v1/models" -H 'Authorization: Bearer file-key')" 401

# a job is there for the key that asked for it
job=$(post /v1/images/generations \
    '{"model":"tutti-image","prompt":"","n":64,"tutti":{"async":true,"steps":64}}' \
    -H 'Authorization: Bearer first' | sed -n 's/.*"poll_url":"\([^"]*\)".*/\1/p')
jobs() { curl -sS "$url/v1/jobs" -H "Authorization: Bearer $1"; }
has 'a job is listed' "$(jobs first)" "\"poll_url\":\"${job:-none}\""
is 'no job is listed for another key' "$(jobs new-key)" '{"object":"list","data":[]}'
is 'another key finds no job' "$(status "$url$job" -H 'Authorization: Bearer new-key')" 404
is 'nor cancels it' "$(status -X POST "$url$job/cancel" -H 'Authorization: Bearer new-key')" 404
is 'nor forgets it' "$(status -X DELETE "$url$job" -H 'Authorization: Bearer new-key')" 404
is 'its own key does' "$(status -X DELETE "$url$job" -H 'Authorization: Bearer first')" 200

if [ ! -d tests/http/node_modules/openai ]; then
    (cd tests/http && npm ci --no-audit --no-fund --loglevel=error) || no 'npm ci in tests/http'
fi
URL=$url MODEL=tutti-text IMAGE_MODEL=tutti-image KEY=first timeout -k 5 300 node --test --test-reporter=tap \
    tests/http/openai.test.mjs >"$scratch/tap" 2>&1
count() { sed -n "s/^# $1 //p" "$scratch/tap" | tail -n 1; }
client_passed=$(count pass) client_failed=$(count fail)
if [ "${client_failed:-1}" -ne 0 ] || [ "${client_passed:-0}" -eq 0 ]; then
    grep -vE '^ +(duration_ms|type:|---|\.\.\.)' "$scratch/tap"
fi
passed=$((passed + ${client_passed:-0})) failed=$((failed + ${client_failed:-1}))
stop
is 'exit status at the end' "$rc" 0

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

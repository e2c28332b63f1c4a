#!/bin/sh
# The command line: hostile options, unknown and broken models, seeds, files of requests.
cd "$(dirname "$0")/../.." || exit 1
tutti=${B:-build/release}/tutti
[ -n "${B:-}" ] && export B
[ -x "$tutti" ] || { echo "$tutti is not built"; echo "0 passed, 1 failed"; exit 1; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
out=$dir/out err=$dir/err
passed=0 failed=0 skipped=0
unset TUTTI_MODELS TUTTI_DEVICE TUTTI_THREADS
model=tutti-text

ok() { passed=$((passed + 1)); }
bad() { # NAME WHY
    failed=$((failed + 1))
    echo "FAIL $1: $2"
}
# expect NAME STATUS PATTERN COMMAND...: the status, and a line of stdout or stderr that matches
expect() {
    name=$1 status=$2 pattern=$3
    shift 3
    timeout 120 "$@" >"$out" 2>"$err" </dev/null
    rc=$?
    if [ $rc -ne "$status" ]; then
        bad "$name" "status $rc, expected $status: $(tail -n 3 "$err")"
    elif ! cat "$out" "$err" | grep -q -e "$pattern"; then
        bad "$name" "nothing matches '$pattern' in: $(cat "$out" "$err" | head -n 5)"
    else
        ok
    fi
}
same() { # NAME FILE FILE
    if cmp -s "$2" "$3"; then ok; else bad "$1" "$(diff "$2" "$3" | head -n 5)"; fi
}
differ() { if cmp -s "$2" "$3"; then bad "$1" "both are: $(cat "$2")"; else ok; fi; }
holds() { if grep -q -F -e "$3" "$2"; then ok; else bad "$1" "no '$3' in: $(head -c 300 "$2")"; fi; }
lacks() { if grep -q -F -e "$3" "$2"; then bad "$1" "'$3' in: $(head -c 300 "$2")"; else ok; fi; }
generate() { "$tutti" generate -m $model "$@" 2>"$err" </dev/null; }

# --- words ---
expect 'no command' 64 'Usage: tutti COMMAND' "$tutti"
expect '--help' 0 'generate' "$tutti" --help
expect 'help' 0 'generate' "$tutti" help
expect '--version' 0 '^tutti [0-9]*\.[0-9]*\.[0-9]*$' "$tutti" --version
expect 'unknown command' 64 "'frobnicate'" "$tutti" frobnicate
for c in serve generate batch inspect doctor bench; do
    expect "$c --help" 0 "Usage: tutti $c" "$tutti" $c --help
    expect "$c --version" 0 '^tutti [0-9]' "$tutti" $c --version
    expect "$c --frobnicate" 64 'frobnicate' "$tutti" $c --frobnicate
done

# --- hostile options ---
g="$tutti generate -p x"
expect 'no prompt' 64 'give --prompt' "$tutti" generate
expect 'prompt and infill' 64 'exclude each other' $g --infill y
expect 'infill and chat' 64 'exclude each other' "$tutti" generate --chat --infill y
expect 'system without chat' 64 'needs --chat' $g --system y
expect 'stray word' 64 "'word'" $g word
for seed in -1 1.5 x '' 99999999999999999999 9007199254740993; do
    expect "seed '$seed'" 64 '--seed is' $g --seed "$seed"
done
expect 'max-tokens 0' 64 '--max-tokens is' $g --max-tokens 0
expect 'max-tokens huge' 64 '--max-tokens is' $g --max-tokens 99999999
expect 'n 0' 64 '--n is' $g --n 0
expect 'n 129' 64 '--n is' $g --n 129
expect 'threads -1' 64 '--threads is' $g --threads -1
expect 'weights' 64 '--weights is' $g --weights f17
expect 'weights no CPU multiplies' 1 'no 8-bit float products' $g --device cpu --weights fp8
expect 'five stops' 64 'more than 4' $g --stop a --stop b --stop c --stop d --stop e
expect 'set without value' 1 'NAME=VALUE' $g --set steps
expect 'set without name' 1 'NAME=VALUE' $g --set =1
expect 'set unknown' 1 "no parameter 'foo'" $g --set foo=1
expect 'set empty' 1 "'steps'" $g --set steps=
expect 'set out of range' 1 "'top_p' is 2" $g --set top_p=2
expect 'set nan' 1 "'temperature'" $g --set temperature=nan
expect 'set wrong choice' 1 'confidence, margin' $g --set remask=best
expect 'set fraction' 1 'integer' $g --set steps=1.5
expect 'set of another sampler' 1 "does not read 'threshold'" $g --sampler low_confidence --set threshold=0.5
expect 'set hexadecimal' 0 . $g -t 2 --sampler low_confidence --set steps=0x1
expect 'set .5' 0 . $g -t 2 --set temperature=.5
expect 'one block, asked for and judged at once' 0 . "$tutti" generate -m $model -t 48 --seed 3 \
    --prompt 'prose: The ship sailed' --sampler wino --set block_length=48
expect 'regex' 0 '^ M[CDXLVI]*$' $g --seed 2 --set temperature=2 --regex ' M[CDXLVI]*'
expect 'json schema' 0 '^ *\(true\|false\)$' $g --json-schema '{"type": "boolean"}'
expect 'a schema that is no JSON' 1 'json-schema' $g --json-schema '{"type":'
expect 'a regex that is none' 1 'byte 1: a ) is missing' $g --regex '('
expect 'regex of holes' 64 'infill has holes' "$tutti" generate --infill 'a [[2]]' --regex a
expect 'unknown sampler' 1 "no sampler 'best'" $g --sampler best
expect 'unknown device' 1 'abacus' $g --device abacus
expect 'empty stop' 1 'stop' $g --stop ''
expect 'threads in the environment' 1 'TUTTI_THREADS' env TUTTI_THREADS=many $g
expect 'a hole of unknown length' 0 'roman: 1994 = MCMXCIV' "$tutti" generate --infill \
    'roman:[[1-7]] = MCMXCIV'
expect 'a choice' 0 'roman: 1994 = MCMXCIV' "$tutti" generate --infill \
    'roman: 1994 =[[ MCMXCVI| MCMXCIV]]'
expect 'infill without hole' 1 'no hole' "$tutti" generate --infill 'nothing to fill'
expect 'canvas beyond the context' 1 'context' $g --max-tokens 100000
expect 'ill-formed UTF-8' 1 'UTF-8\|utf-8' "$tutti" generate -p "$(printf 'a\377b')"

# --- models ---
expect 'unknown model' 1 "no model 'nope'.*'$model'" $g -m nope
expect 'missing folder' 1 "'/nowhere/at/all'" $g -m /nowhere/at/all
expect 'folder without config' 1 'config.json' $g -m "$dir/"
mkdir "$dir/broken" "$dir/short" "$dir/strange"
echo '{' >"$dir/broken/config.json"
expect 'broken config' 1 'config.json' $g -m "$dir/broken"
echo '{"architectures": ["NoSuchModel"]}' >"$dir/strange/config.json"
expect 'unknown architecture' 1 'NoSuchModel' $g -m "$dir/strange"
cp models/demo/$model/config.json "$dir/short/"
expect 'no weights' 1 'safetensors' $g -m "$dir/short"
head -c 100000 models/demo/$model/model.safetensors >"$dir/short/model.safetensors"
expect 'weights cut off' 1 'safetensors' $g -m "$dir/short"
expect 'inspect of broken' 1 'config.json' "$tutti" inspect "$dir/broken"
(cd "$dir" && "$OLDPWD/$tutti" generate -p x -t 2 >"$out" 2>"$err") && ok ||
    bad 'embedded models are found from anywhere' "$(cat "$err")"

# --- seeds ---
generate -p 'the sea' -t 16 --seed 7 >"$dir/a"
generate -p 'the sea' -t 16 --seed 7 >"$dir/b"
generate -p 'the sea' -t 16 --seed 7 --threads 2 >"$dir/c"
generate -p 'the sea' -t 16 --seed 7 --threads 1 --device plain >"$dir/d"
[ -s "$dir/a" ] && ok || bad 'generate' "no output: $(cat "$err")"
same 'same seed, same bytes' "$dir/a" "$dir/b"
same 'threads change nothing' "$dir/a" "$dir/c"
same 'plain kernels change nothing in greedy text' "$dir/a" "$dir/d"
for t in 1 2; do
    generate -p 'the sea' -t 16 --seed 7 --set temperature=1 --threads $t >"$dir/warm$t"
done
generate -p 'the sea' -t 16 --seed 8 --set temperature=1 >"$dir/other"
same 'threads change nothing when drawing' "$dir/warm1" "$dir/warm2"
differ 'another seed, another text' "$dir/warm1" "$dir/other"
generate -p 'the sea' -t 16 --seed 7 --set temperature=1 -n 2 >"$dir/two"
[ "$(grep -c '^---$' "$dir/two")" -eq 1 ] && ok || bad 'n 2' "$(cat "$dir/two")"
sed '/^---$/,$d' "$dir/two" >"$dir/first"
same 'the first of two is the one alone' "$dir/first" "$dir/warm1"

# --- output ---
lacks 'text alone on stdout' "$dir/a" forwards
generate -p 'the sea' -t 16 --seed 7 --echo >"$dir/echo"
holds '--echo' "$dir/echo" 'the sea'
generate -p 'the sea' -t 16 --seed 7 --json >"$dir/json"
holds '--json' "$dir/json" '"object":"text_completion"'
generate --infill 'In the [[3]] was the [[2]].' --seed 7 >"$dir/infill"
grep -q '^In the .* was the .*\.$' "$dir/infill" && ok || bad 'infill' "$(cat "$dir/infill")"
echo 'the sea' | tr -d '\n' | "$tutti" generate -m $model -p - -t 16 --seed 7 >"$dir/stdin" 2>"$err"
same 'prompt from stdin' "$dir/a" "$dir/stdin"
printf 'a\0b' | "$tutti" generate -m $model -p - >"$out" 2>"$err" && bad 'NUL' 'accepted' || ok
word=$(tr -s ' \n' '\n' <"$dir/a" | grep -E '^[a-z]{3,}$' | tail -n 1)
if [ -n "$word" ]; then
    generate -p 'the sea' -t 16 --seed 7 --stop "$word" >"$dir/stop"
    lacks "--stop $word" "$dir/stop" "$word"
else
    bad '--stop' "no word to stop at in: $(cat "$dir/a")"
fi
generate -p 'the sea' -t 16 --seed 7 --show >"$dir/show"
same '--show without a terminal' "$dir/a" "$dir/show"
if script -qec true /dev/null >/dev/null 2>&1 </dev/null; then
    script -qec "$tutti generate -m $model -p 'the sea' -t 16 --seed 7 --show >$dir/show" "$dir/tty" \
        >/dev/null 2>&1 </dev/null
    same '--show prints the same text' "$dir/a" "$dir/show"
    holds '--show draws open columns' "$dir/tty" '░'
else
    skipped=$((skipped + 2))
    echo 'skipped: --show on a terminal (this machine gives none to script(1))'
fi
"$tutti" generate -m $model -p x -t 4 >/dev/full 2>/dev/null && bad 'full disk' 'not noticed' || ok
expect 'chat' 0 . "$tutti" generate -m $model --chat -p Hello -t 32 --seed 1

# --- the other models that come along ---
# Puzzles with one solution, which the model solves; each line: puzzle, solution.
solve() { "$tutti" generate -m tutti-sudoku --seed 1 "$@" 2>"$err" </dev/null | tr -d '\n'; }
while read -r puzzle solution; do
    [ "$(solve --infill "$puzzle")" = "$solution" ] && ok || bad 'sudoku, a cell a pass' "$puzzle"
    [ "$(solve --infill "$puzzle" --sampler threshold --set threshold=0.99)" = "$solution" ] && ok ||
        bad 'sudoku, by threshold' "$puzzle"
    printf '{"custom_id":"%s","url":"/v1/infill","body":{"model":"tutti-sudoku","segments":[{"text":"%s"}],' \
        "$solution" "$puzzle" >>"$dir/puzzles"
    printf '"tutti":{"sampler":"threshold","threshold":0.99}}}\n' >>"$dir/puzzles"
done <<'END'
..714...5.2...5.1...6.....7....1276.57.6......69..4..1.8..3...27...8.35...2...87. 937148625428765913156329487843512769571693248269874531685437192794281356312956874
.....8763...1.74..627....1..5....6.28...315...7...6.3.7.2.85.....5.....4..8...2.6 541928763389167425627543918153794682896231547274856139762485391935612874418379256
....2....653..8.2...85...73...7652..9458......67......3...1...5..6...93..8...71.2 794623581653178429128549673831765294945832716267491358372916845516284937489357162
END
expect 'sudoku: batch' 0 '3 answered, 0 of them' "$tutti" batch -m tutti-sudoku -i "$dir/puzzles" -o "$dir/solved"
right=$(sed -n 's/.*"custom_id":"\([1-9]*\)".*"text":"\1".*/right/p' "$dir/solved" | wc -l)
[ "$right" -eq 3 ] && ok || bad 'sudoku: /v1/infill' "$right of 3 are right"
expect 'sudoku: a cell too many' 1 'context\|81' "$tutti" generate -m tutti-sudoku --infill \
    '..714...5.2...5.1...6.....7....1276.57.6......69..4..1.8..3...27...8.35...2...87.1'

guided() { generate --guide tutti-text-guide --sampler guided --seed 7 -t 32 "$@"; }
for prompt in 'Genesis 1:1' 'The whale' 'json: Ada is 36, lives in Oslo and likes green ='; do
    guided -p "$prompt" >"$dir/guided1"
    [ -s "$dir/guided1" ] && ok || bad "guided '$prompt'" "no output: $(cat "$err")"
    guided -p "$prompt" --threads 2 >"$dir/guided2"
    same "guided '$prompt', twice" "$dir/guided1" "$dir/guided2"
done
holds 'guided: a task' "$dir/guided1" '{"name": "Ada", "age": 36, "city": "Oslo", "colour": "green"}'
expect 'guided without a guide' 1 'needs a guide' $g --sampler guided
expect 'guide without its sampler' 1 'takes no guide' $g --guide tutti-text-guide
expect 'a guide that does not exist' 1 "no model 'nope'" $g --sampler guided --guide nope
expect 'a guide that is not causal' 1 'is not causal' $g --sampler guided --guide tutti-sudoku
expect 'a guide of another vocabulary' 1 'one vocabulary' "$tutti" generate -m tutti-sudoku -p 1 -t 4 \
    --sampler guided --guide tutti-text-guide
expect 'a guide does not write' 1 . $g -m tutti-text-guide

# --- inspect and doctor ---
expect 'inspect' 0 'LLaDAModelLM' "$tutti" inspect $model
expect 'inspect names the tokenizer' 0 'tokenizer  *byte-level\|tokenizer  *[A-Za-z]' "$tutti" inspect $model
expect 'inspect reads generation_config.json' 0 'sampler threshold, blocks of 8' "$tutti" inspect $model
expect 'inspect --tensors' 0 'model.transformer' "$tutti" inspect --tensors $model
expect 'inspect --list' 0 'low_confidence' "$tutti" inspect --list
expect 'inspect nothing' 64 'give a model' "$tutti" inspect
expect 'inspect two' 64 'too many' "$tutti" inspect a b
expect 'doctor' 0 "$model" "$tutti" doctor
expect 'doctor names libraries' 0 'libmicrohttpd [0-9]' "$tutti" doctor
expect 'doctor without models' 0 'models' env TUTTI_MODELS=/nowhere "$tutti" doctor

# --- bench ---
b="$tutti bench -m $model --seconds 0"
expect 'bench: two models' 64 'exclude each other' $b --shape x
expect 'bench: unknown part' 64 "'loads'" $b --only loads
expect 'bench: unknown cache' 64 'none, prefix, dual, free' $b --cache all
expect 'bench: bad seconds' 64 '--seconds is' $b --seconds -1
for list in '' 0 1,,2 1,x 1.5 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17; do
    expect "bench: rows '$list'" 64 '--rows ' $b --rows "$list"
done
expect 'bench: rows beyond the context' 1 '--rows is 513' $b --rows 513
expect 'bench: cached beyond the context' 1 '--cached is 500' $b --cached 500
expect 'bench: prompt beyond the context' 1 '--prompt is 400' $b --prompt 400 --tokens 113
expect 'bench: no such shape' 1 'config.json' "$tutti" bench --shape "$dir/nowhere"
mkdir -p "$dir/image/vqgan"
cat >"$dir/image/config.json" <<'END'
{"architectures": ["ENAT"], "input_size": 4, "hidden_size": 48, "num_heads": 3, "enc_dec": [2, 1],
 "codebook_size": 30, "num_classes": 5}
END
shape='"ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "z_channels": 8'
codec() { echo "{\"architectures\": [\"VQGAN\"], \"n_embed\": 30, \"ddconfig\": {$shape, \"resolution\": $1}}"; }
codec 32 >"$dir/image/vqgan/config.json"
expect 'bench: a codec of another grid' 1 'makes 16 tokens' "$tutti" bench --shape "$dir/image"
codec 16 >"$dir/image/vqgan/config.json"
expect 'bench: images' 0 '^  *3  *no  *[0-9]' "$tutti" bench --shape "$dir/image" --batch 1,3 \
    --seconds 0 --device plain --json "$dir/figures"
node - "$dir/figures" >"$out" 2>&1 <<'END' && ok || bad 'bench: images as JSON' "$(cat "$out")"
const assert = require("assert");
const f = JSON.parse(require("fs").readFileSync(process.argv[2]));
assert.deepEqual(f.images.map((i) => [i.batch, i.feature_reuse]),
    [[1, true], [1, false], [3, true], [3, false]]);
for (const i of f.images)
    assert(i.tokens_ms > 0 && i.pixels_ms > 0 && i.floor_ms > i.pixels_floor_ms, i.batch);
assert(f.images[0].floor_ms < f.images[1].floor_ms);
END
expect 'bench: figures into nowhere' 1 'No such file' $b --only forwards --rows 1 --cached 0 --json "$dir/no/json"
expect 'bench' 0 '^ceilings  *memory [0-9.]* GB/s, f32 [0-9.]* ' $b --rows 1,8 --block 8 --cached 24 \
    --batch 1,2 --streams 1,3 --prompt 8 --tokens 16 --tokens-per-step 4 --cache dual,free --json "$dir/figures"
for want in '^1 x 8 rows  *[0-9]' '^2 x 8 rows over 24  *[0-9]' '^  *3  *[0-9]' '^memory '; do
    grep -q "$want" "$out" && ok || bad "bench: $want" "$(cat "$out")"
done
# 16 tokens in 2 blocks, 4 a step, are 4 steps of one or two passes each
node - "$dir/figures" >"$out" 2>&1 <<'END' && ok || bad 'bench: its JSON' "$(cat "$out")"
const assert = require("assert");
const f = JSON.parse(require("fs").readFileSync(process.argv[2]));
assert.deepEqual(f.forwards.map((r) => r.name),
    ["1 x 1 rows", "1 x 8 rows", "1 x 8 rows over 24", "2 x 8 rows over 24"]);
for (const r of f.forwards)
    assert(r.ms >= r.least_ms && r.least_ms > 0 && r.floor_ms > 0 && r.runs >= 3, r.name);
assert.deepEqual(f.generation.caches.map((c) => c.cache), ["dual", "free"]);
for (const c of f.generation.caches)
    assert.deepEqual(c.runs.map((r) => r.streams), [1, 3]);
for (const r of f.generation.caches.flatMap((c) => c.runs)) {
    assert(r.passes >= 4 && r.passes <= 8 && r.tokens_per_forward >= 2, r.streams);
    assert(Math.abs(r.tokens_per_s * r.seconds / r.streams - 16) < 1e-3, r.streams);
}
assert(f.memory.peak >= f.memory.loaded && f.memory.loaded > 0);
END
cp tests/golden/masked-diffusion/llada/config.json "$dir/broken/config.json"
expect 'bench of a shape' 0 'random weights' "$tutti" bench --shape "$dir/broken/" --seconds 0 \
    --only generation --streams 2 --prompt 4 --tokens 8 --block 4 --cache none
lacks 'bench: one part alone' "$out" 'forward  '

# --- installed ---
if make -s install DESTDIR="$dir/root" PREFIX=/usr >"$out" 2>"$err" </dev/null; then
    ok
    installed=$dir/root/usr/bin/tutti
    expect 'installed: generate' 0 . "$installed" generate -p x -t 2
    (cd / && "$installed" inspect $model) >"$out" 2>"$err"
    holds 'installed: its own model' "$out" "$dir/root/usr/share/tutti/models/$model"
    [ -s "$dir/root/usr/share/doc/tutti/NOTICE" ] && ok || bad 'installed: NOTICE' 'is missing'
else
    bad 'make install' "$(tail -n 5 "$err")"
fi

# --- batch ---
line() { # ID MORE
    printf '{"custom_id":"%s","method":"POST","url":"/v1/completions","body":{"model":"%s",%s}}\n' \
        "$1" "$model" "$2"
}
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
    line "r$i" "\"prompt\":\"word $i\",\"max_tokens\":$((4 + i)),\"seed\":$i,\"tutti\":{\"temperature\":1}"
done >"$dir/in"
read_line() { # ID ROUTE MORE
    printf '{"custom_id":"%s","method":"POST","url":"/v1/%s","body":{"model":"%s",%s}}\n' "$1" \
        "$2" "$model" "$3"
}
{
    read_line a embeddings '"input":["the sea","a ship"]'
    read_line b likelihood '"text":"the sea","samples":4,"seed":1'
    read_line c rerank '"query":"sea","documents":["the sea","add"]'
    read_line d embeddings '"input":""'
} >"$dir/read"
expect 'batch of texts to read' 1 '4 answered, 1 of them' "$tutti" batch -m $model -i "$dir/read" \
    -o "$dir/read.out"
holds 'batch: embeddings' "$dir/read.out" '"object":"embedding","index":1'
holds 'batch: likelihood' "$dir/read.out" '"object":"likelihood.score"'
holds 'batch: rerank' "$dir/read.out" '"relevance_score"'
holds 'batch: a text without tokens' "$dir/read.out" '"param":"input"'
texts() { sed -n 's/.*"custom_id":"\([^"]*\)".*"text":\("[^"]*"\).*/\1 \2/p' "$1" | sort; }
expect 'batch' 0 '12 answered, 0 of them' "$tutti" batch -m $model -i "$dir/in" -o "$dir/o1"
expect 'batch, one at a time' 0 '12 answered' "$tutti" batch -m $model -i "$dir/in" -o "$dir/o2" --window 1
texts "$dir/o1" >"$dir/t1"
texts "$dir/o2" >"$dir/t2"
[ "$(wc -l <"$dir/t1")" -eq 12 ] && ok || bad 'batch answers' "$(head -c 400 "$dir/o1")"
same 'neighbours change nothing' "$dir/t1" "$dir/t2"
expect 'batch does not overwrite' 1 '--resume' "$tutti" batch -m $model -i "$dir/in" -o "$dir/o1"
{ head -n 5 "$dir/o1"; printf '{"id":"batch_req_6","custom_'; } >"$dir/o3"
expect 'batch --resume' 0 '7 answered.*5 were there' "$tutti" batch -m $model -i "$dir/in" -o "$dir/o3" --resume
texts "$dir/o3" >"$dir/t3"
same 'resumed is as whole' "$dir/t1" "$dir/t3"
{
    echo 'no json'
    echo
    line good '"prompt":"a","max_tokens":2'
    line good '"prompt":"a","max_tokens":2'
    line streams '"prompt":"a","stream":true'
    line unknown '"prompt":"a","foo":1'
    echo '{"custom_id":"url","method":"POST","url":"/v1/models","body":{}}'
    echo '{"custom_id":"more","method":"POST","url":"/v1/completions","body":{},"extra":1}'
    echo '{"method":"POST","url":"/v1/completions","body":{}}'
    echo '{"custom_id":"model","url":"/v1/completions","body":{"model":"nope","prompt":"a"}}'
    printf '{"custom_id":"last","url":"/v1/infill","body":{"model":"%s","segments":[{"hole":{"max":2}}]}}' $model
} >"$dir/in"
expect 'batch with bad lines' 1 '10 answered, 8 of them' "$tutti" batch -m $model -i "$dir/in" -o "$dir/o4"
for want in '"code":"invalid_json"' 'was used before' 'a batch has no streams' '"param":"foo"' \
    "'POST /v1/models' cannot be asked" '"param":"extra"' "'custom_id' is missing" \
    '"code":"model_not_found"' '"custom_id":"last","response":{"status_code":200'; do
    holds "bad line: $want" "$dir/o4" "$want"
done
expect 'batch without files' 64 'either -i INPUT or --per-class' "$tutti" batch -m $model
expect 'batch without input' 1 'No such file' "$tutti" batch -m $model -i "$dir/none" -o "$dir/o5"
expect 'batch into nowhere' 1 'No such file' "$tutti" batch -m $model -i "$dir/in" -o "$dir/no/o5"
: >"$dir/empty"
expect 'empty batch' 0 '0 answered' "$tutti" batch -m $model -i "$dir/empty" -o "$dir/o6"
"$tutti" batch -m $model -i - -o - <"$dir/in" 2>/dev/null | grep -c custom_id >"$dir/count"
[ "$(cat "$dir/count")" -eq 10 ] && ok || bad 'batch in a pipe' "$(cat "$dir/count") lines"

# --- images ---
image="$tutti generate -m tutti-image --set steps=2"
is_png() { [ "$(head -c 8 "$2" | od -An -tx1 | tr -d ' \n')" = 89504e470d0a1a0a ] && ok || bad "$1" 'no PNG'; }
expect 'inspect an image model' 0 'pixels .*64 x 64' "$tutti" inspect tutti-image
expect 'inspect --list: images' 0 'image codecs' "$tutti" inspect --list
expect 'an image' 0 "^$dir/a.png" $image -p '' --seed 3 -o "$dir/a.png"
is_png 'an image is a PNG' "$dir/a.png"
$image -p '' --seed 3 -o - 2>"$err" >"$dir/b.png"
same 'the same seed' "$dir/a.png" "$dir/b.png"
expect 'images by number' 0 "^$dir/c-2.png" $image -p '' --seed 4 -n 2 -o "$dir/c.png"
differ 'another sample' "$dir/c-1.png" "$dir/c-2.png"
expect 'an image as JSON' 0 '"b64_json":"iVBOR' $image -p '' --json
expect 'nothing to make anew' 1 'no transparent place' $image -p '' --image "$dir/a.png"
expect 'a mask that is no PNG' 1 'not a PNG' $image -p '' --image "$dir/a.png" --mask "$0"
expect 'a mask without an image' 64 '--mask needs --image' $image -p '' --mask "$dir/a.png"
expect 'a label nobody knows' 1 "does not know 'qqq'" $image -p qqq
expect 'a parameter of texts' 1 "does not read 'threshold'" $image -p '' --set threshold=0.5
expect 'a text into a file' 1 'are for image models' "$tutti" generate -m $model -p x -o "$dir/d.png"
expect 'a chat with an image model' 1 'makes images' "$tutti" generate -m tutti-image --chat -p x

per="$tutti batch -m tutti-image --set steps=2 --per-class"
expect 'images of classes' 0 '^36 images' $per 18 --classes 0,2 -o "$dir/many"
[ "$(ls "$dir/many"/*.png | wc -l)" -eq 36 ] && ok || bad 'images of classes' "$(ls "$dir/many" | wc -l) files"
is_png 'one of them' "$dir/many/00002-00017.png"
expect 'images do not overwrite' 1 '--resume' $per 18 --classes 0,2 -o "$dir/many"
cp -r "$dir/many" "$dir/half"
{ head -n 1 "$dir/many/batch.list"; printf '0\n1\n'; } >"$dir/half/batch.list" # class 0
rm "$dir/half"/00002*
expect 'images --resume' 0 '^18 images.*18 were there' $per 18 --classes 0,2 -o "$dir/half" --resume
for f in "$dir/many"/*.png; do cmp -s "$f" "$dir/half/${f##*/}" || bad 'images --resume' "${f##*/} differs"; done
expect 'images of something else' 1 'something else' $per 18 --classes 0-2 -o "$dir/half" --resume
expect 'images as an archive' 0 '^6 images' $per 3 --classes 0-1 -o "$dir/many.npz"
[ "$(head -c 4 "$dir/many.npz" | od -An -tx1 | tr -d ' \n')" = 504b0304 ] && ok || bad 'archive' 'no ZIP'
expect 'a class nobody knows' 1 "'999999' is no class" $per 1 --classes 999999 -o "$dir/none.npz"
expect 'images of a text model' 1 'makes no images' "$tutti" batch -m $model --per-class 1 -o "$dir/x"
expect 'images and requests' 64 'either -i INPUT or' $per 1 -i "$dir/in" -o "$dir/x"
printf '{"custom_id":"a","url":"/v1/images/generations","body":{"prompt":"","tutti":{"steps":1}}}\n' >"$dir/one"
expect 'a request for an image in a batch' 0 '^1 answered, 0' "$tutti" batch -m tutti-image -i "$dir/one" \
    -o "$dir/one.out"
holds 'and its answer' "$dir/one.out" '"b64_json":"iVBOR'

line="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ]

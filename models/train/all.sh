#!/bin/bash
# Trains the autoregressive baseline, the guide and the sudoku model at once on one GPU, measures
# them, and packs what ships; everything ends within SECONDS_ALL (9 minutes) of the start.
#
#   all.sh PACK.jsonl.xz OUT [WORK]
#
# OUT gets tutti-text-guide.tar and tutti-sudoku.tar (unpack them in models/demo), baseline.json,
# guide.json, sudoku.json (results) and logs.tar. WORK keeps the encoded data and the checkpoints:
# a second call finds the data there.
# What may be set: SECONDS_ALL, PARTS ("baseline guide sudoku"), OPTIONS (for every training
# program), BASELINE_OPTIONS, GUIDE_OPTIONS, SUDOKU_OPTIONS, ENCODE_OPTIONS, PYTHON.
# A part that fails leaves the others alone; its status is in the closing lines.
set -u
pack=$(realpath "$1") out=$(mkdir -p "$2" && realpath "$2")
work=$(mkdir -p "${3:-work}" && realpath "${3:-work}")
here=$(dirname "$(realpath "$0")")
text=$here/../demo/tutti-text
start=$(date +%s)
total=${SECONDS_ALL:-540}
train_until=$((start + total - total / 5)) # the last fifth: export, measuring, packing
stop=$((start + total - 20))
python=${PYTHON:-python3}
cd "$here" || exit 1
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=2

say() { echo "[$(($(date +%s) - start)) s] $*"; }

# NAME COMMAND...: run before the time is up, in a log of its own whose lines are printed as well.
# If nothing was saved, once more without compilation.
part() {
    local name=$1 rc
    shift
    attempt "$name" "$@"
    rc=$?
    if [ $rc -ne 0 ] && [ ! -e "$work/$name/mean.pt" ] && [ "$(date +%s)" -lt $((train_until - 60)) ]; then
        say "$name: status $rc, again without compilation"
        attempt "$name" "$@" --no-compile
        rc=$?
    fi
    say "$name: status $rc"
}
attempt() {
    local name=$1
    shift
    timeout $((stop - $(date +%s))) "$@" 2>&1 | tee -a "$work/$name.log" | sed -u "s/^/$name: /" | cut -c1-400
    return "${PIPESTATUS[0]}"
}
wanted() { [[ " ${PARTS:-baseline guide sudoku} " == *" $1 "* ]]; }

# Data of the text networks, made once.
encode() {
    [ -e "$work/data.npz" ] && return
    say "encoding $pack"
    "$python" encode.py "$pack" "$text/tokenizer.json" "$work/new.npz" --tasks 2400000 --chats 1200000 \
        ${ENCODE_OPTIONS:-} && mv "$work/new.npz" "$work/data.npz"
}

rm -rf "$work/baseline" "$work/guide" "$work/sudoku" "$work"/*.log
rm -f "$out"/{baseline,guide,sudoku}.json "$out"/{tutti-text-guide,tutti-sudoku,logs}.tar
common="--until $train_until --save-seconds 60 ${OPTIONS:-}"
if wanted sudoku; then
    part sudoku "$python" sudoku.py "$work/sudoku" --out "$out/sudoku.json" $common ${SUDOKU_OPTIONS:-} &
fi
if wanted baseline || wanted guide; then
    encode 2>&1 | tee "$work/encode.log"
    # As many text tokens as tutti-text's first short run saw.
    wanted baseline && part baseline "$python" causal.py "$work/data.npz" "$work/baseline" baseline \
        --tokens 147e6 --masked "$text" --out "$out/baseline.json" $common ${BASELINE_OPTIONS:-} &
    wanted guide && part guide "$python" causal.py "$work/data.npz" "$work/guide" guide \
        --out "$out/guide.json" $common ${GUIDE_OPTIONS:-} &
fi
wait

for model in guide/tutti-text-guide sudoku/tutti-sudoku; do
    [ -e "$work/$model/model.safetensors" ] &&
        tar -C "$work/${model%/*}" -cf "$out/${model#*/}.tar" "${model#*/}"
done
(cd "$work" && tar -cf "$out/logs.tar" -- *.log */log.jsonl)
say "done"
ls -l "$out"

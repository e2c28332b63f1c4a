#!/bin/bash
# Trains tutti-insertion-stars (with its baselines), tutti-insertion and tutti-recurrent at once,
# measures them, and packs what ships; everything ends within SECONDS_ALL (6 minutes) of the start.
#
#   small.sh PACK.jsonl.xz OUT [WORK]
#
# With two GPUs the star graphs have the first to themselves; the text model trains beside the
# recurrent one for the first TEXT_SHARE percent of the time.  OUT gets one .tar of each model (unpack them in
# models/demo), stars.json, insertion.json, recurrent.json (results) and logs.tar.
# What may be set: SECONDS_ALL, TAIL (seconds kept for measuring), TEXT_SHARE, OPTIONS (for every
# program), STARS_OPTIONS, INSERTION_OPTIONS, RECURRENT_OPTIONS, PYTHON.
# A part that fails leaves the others alone; its status is in the closing lines.
set -u
pack=$(realpath "$1") out=$(mkdir -p "$2" && realpath "$2")
work=$(mkdir -p "${3:-work}" && realpath "${3:-work}")
start=$(date +%s)
total=${SECONDS_ALL:-360}
train_until=$((start + total - ${TAIL:-50}))
text_until=$((start + (train_until - start) * ${TEXT_SHARE:-40} / 100))
stop=$((start + total - 5))
python=${PYTHON:-python3}
gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())')
cd "$(dirname "$(realpath "$0")")" || exit 1
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=4 TORCHINDUCTOR_COMPILE_THREADS=8

say() { echo "[$(($(date +%s) - start)) s] $*"; }

# NAME GPU COMMAND...: run before the time is up, in a log of its own whose lines are printed as well.
# If nothing was saved, once more without compilation.
part() {
    local name=$1 rc
    attempt "$@"
    rc=$?
    if [ $rc -ne 0 ] && ! ls "$work/$name"/*/model.safetensors >/dev/null 2>&1; then
        say "$name: status $rc, again without compilation"
        attempt "$@" --no-compile
        rc=$?
    fi
    say "$name: status $rc"
}
attempt() {
    local name=$1 gpu=$2
    shift 2
    CUDA_VISIBLE_DEVICES=$gpu timeout $((stop - $(date +%s))) "$@" 2>&1 | tee -a "$work/$name.log" |
        sed -u "s/^/$name: /" | cut -c1-300
    return "${PIPESTATUS[0]}"
}
pack_models() {
    local model
    for model in stars/tutti-insertion-stars insertion/tutti-insertion recurrent/tutti-recurrent; do
        [ -e "$work/$model/model.safetensors" ] &&
            tar -C "$work/${model%/*}" -cf "$out/${model#*/}.tar" "${model#*/}"
    done
    (cd "$work" && tar -cf "$out/logs.tar" -- *.log)
}

rm -rf "$work"/{stars,insertion,recurrent} "$work"/*.log
second=$((gpus > 1 ? 1 : 0))
part stars 0 "$python" stars.py "$work/stars" --until $train_until --out "$out/stars.json" \
    ${OPTIONS:-} ${STARS_OPTIONS:-} &
jobs="$!"
part insertion $second "$python" insertion_text.py "$pack" "$work/insertion" --until $text_until \
    --out "$out/insertion.json" ${OPTIONS:-} ${INSERTION_OPTIONS:-} &
jobs="$jobs $!"
part recurrent $second "$python" recurrent.py "$pack" "$work/recurrent" --until $train_until \
    --out "$out/recurrent.json" ${OPTIONS:-} ${RECURRENT_OPTIONS:-} &
jobs="$jobs $!"
(while sleep 60; do pack_models; done) 2>/dev/null &
saver=$!
wait $jobs
kill $saver
pack_models
say "done"
ls -l "$out"

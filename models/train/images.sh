#!/bin/bash
# Trains the picture tokenizer and the generator on it, makes the sheets and the figures, and packs
# them; everything ends within SECONDS_ALL of the start. Every grid has GPUS GPUs of its own, so that
# variants can be compared; the tokenizer uses one of them.
#
#   images.sh PACK OUT [WORK]
#
# PACK is the folder of emoji_pack.py, with features.{json,bin} of inception_weights.js in it or none.
# OUT gets grid-G.tar (tutti-image with tokenizer, sheets, results.json, logs) and mean-G.pt.
# What may be set: SECONDS_ALL, GRIDS ("8 16"), GPUS (1), CODEC_SHARE (of the time, in %), CODEC (a
# folder with the vqgan and codes.pt of an earlier run, to train the generator alone),
# REPORT_SECONDS, OPTIONS (for both programs), CODEC_OPTIONS, ENAT_OPTIONS, SETTINGS (of
# image_report.py), PYTHON.
set -u
pack=$(realpath "$1") out=$(mkdir -p "$2" && realpath "$2")
work=$(mkdir -p "${3:-work}" && realpath "${3:-work}")
start=$(date +%s)
total=${SECONDS_ALL:-540}
codec_until=$((start + total * ${CODEC_SHARE:-45} / 100))
enat_until=$((start + total - ${REPORT_SECONDS:-50}))
stop=$((start + total - 6))
python=${PYTHON:-python3}
cd "$(dirname "$(realpath "$0")")" || exit 1
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=4

say() { echo "[$(($(date +%s) - start)) s] $*"; }

# NAME COMMAND...: run before the time is up, in a log of its own whose lines are printed as well.
attempt() {
    local name=$1 left=$((stop - $(date +%s)))
    shift
    [ $left -gt 0 ] || { say "$name: no time left"; return; }
    timeout $left "$@" 2>&1 | tee -a "$work/$name.log" | sed -u "s/^/$name: /" | cut -c1-600
    say "$name: status ${PIPESTATUS[0]}"
}

# The generator; once more without graphs if nothing was saved.
generator() {
    local grid=$1 dir=$2 launch=$python
    [ "${GPUS:-1}" -gt 1 ] && launch="$python -m torch.distributed.run --standalone --nproc_per_node $GPUS"
    set -- train_enat.py "$pack" "$dir" --grid "$grid" --until "$enat_until" --save-seconds 45 \
        ${OPTIONS:-} ${ENAT_OPTIONS:-}
    attempt "enat-$grid" $launch "$@"
    [ -e "$dir/mean.pt" ] || attempt "enat-$grid" $launch "$@" --no-compile
}

variant() {
    local grid=$1 dir=$work/grid-$1
    mkdir -p "$dir"
    if [ -n "${CODEC:-}" ]; then
        cp -r "$CODEC/vqgan" "$CODEC/codes.pt" "$dir"
    else
        attempt "codec-$grid" "$python" train_vqgan.py "$pack" "$dir" --grid "$grid" \
            --until "$codec_until" ${OPTIONS:-} ${CODEC_OPTIONS:-} &
    fi
    generator "$grid" "$dir"
    wait
    [ -e "$dir/vqgan" ] && [ -e "$dir/tutti-image" ] && mv "$dir/vqgan" "$dir/tutti-image/"
    attempt "report-$grid" "$python" image_report.py "$pack" "$dir/tutti-image" "$dir" \
        $([ -e "$pack/features.bin" ] && echo "--features $pack/features") --settings ${SETTINGS:-}
}

device=0
rm -rf "$work"/grid-* "$work"/*.log
for grid in ${GRIDS:-8}; do
    CUDA_VISIBLE_DEVICES=$(seq -s , $device $((device + ${GPUS:-1} - 1))) variant "$grid" &
    device=$((device + ${GPUS:-1}))
done
wait
for grid in ${GRIDS:-8}; do
    cp "$work"/*-"$grid".log "$work/grid-$grid"
    tar -C "$work/grid-$grid" --exclude checkpoint.pt --exclude mean.pt -cf "$out/grid-$grid.tar" .
    cp "$work/grid-$grid/mean.pt" "$out/mean-$grid.pt"
done
say "done"
ls -l "$out"

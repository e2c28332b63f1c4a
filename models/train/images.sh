#!/bin/bash
# Trains the picture tokenizer and the generator on it, makes the sheets and the figures, and packs
# them; everything ends within SECONDS_ALL of the start. Every grid has a GPU of its own, so that
# variants can be compared.
#
#   images.sh PACK OUT [WORK]
#
# PACK is the folder of emoji_pack.py, with features.{json,bin} of inception_weights.js in it or none.
# OUT gets grid-G.tar (tutti-image with tokenizer, sheets, results.json, logs) and mean-G.pt.
# What may be set: SECONDS_ALL, GRIDS ("8 16"), CODEC_SHARE (of the time, in %), REPORT_SECONDS,
# OPTIONS (for both programs), CODEC_OPTIONS, ENAT_OPTIONS, SETTINGS (of image_report.py), PYTHON.
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
    local name=$1
    shift
    timeout $((stop - $(date +%s))) "$@" 2>&1 | tee -a "$work/$name.log" | sed -u "s/^/$name: /" | cut -c1-600
    say "$name: status ${PIPESTATUS[0]}"
}

variant() {
    local grid=$1 dir=$work/grid-$1
    mkdir -p "$dir"
    attempt "codec-$grid" "$python" train_vqgan.py "$pack" "$dir" --grid "$grid" --until "$codec_until" \
        ${OPTIONS:-} ${CODEC_OPTIONS:-} &
    attempt "enat-$grid" "$python" train_enat.py "$pack" "$dir" --grid "$grid" --until "$enat_until" \
        --save-seconds 45 ${OPTIONS:-} ${ENAT_OPTIONS:-}
    wait
    [ -e "$dir/vqgan" ] && [ -e "$dir/tutti-image" ] && mv "$dir/vqgan" "$dir/tutti-image/"
    attempt "report-$grid" "$python" image_report.py "$pack" "$dir/tutti-image" "$dir" \
        $([ -e "$pack/features.bin" ] && echo "--features $pack/features") --settings ${SETTINGS:-}
}

device=0
rm -rf "$work"/grid-* "$work"/*.log
for grid in ${GRIDS:-8}; do
    CUDA_VISIBLE_DEVICES=$device variant "$grid" &
    device=$((device + 1))
done
wait
for grid in ${GRIDS:-8}; do
    cp "$work"/*-"$grid".log "$work/grid-$grid"
    tar -C "$work/grid-$grid" --exclude checkpoint.pt --exclude mean.pt -cf "$out/grid-$grid.tar" .
    cp "$work/grid-$grid/mean.pt" "$out/mean-$grid.pt"
done
say "done"
ls -l "$out"

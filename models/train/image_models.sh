#!/bin/bash
# Trains the picture models of ordered tokens, COMiT and the verifiers: any of them at once, each on
# the GPU it is told, everything within SECONDS_ALL of the start.
#
#   image_models.sh PACK OUT JOB...
#
# PACK is the folder of emoji_pack.py. A JOB is "GPU KIND PERCENT FOLDER [options]": KIND is restok,
# har, next, comit, verifier or judge, PERCENT the share of the time after which it ends, FOLDER the
# place of its results in WORK, options are the program's. har and next wait for codes.pt in their
# FOLDER. The folders found in FROM (results of an earlier call) are there at the start, so that
# "--init FOLDER/restok.pt" goes on from them. OUT gets FOLDER.tar.xz of each.
# What may be set: SECONDS_ALL (460), WORK (work), FROM, PYTHON.
set -u
pack=$(realpath "$1") out=$(mkdir -p "$2" && realpath "$2")
shift 2
work=$(mkdir -p "${WORK:-work}" && realpath "${WORK:-work}")
start=$(date +%s) total=${SECONDS_ALL:-460}
stop=$((start + total))
[ -n "${FROM:-}" ] && cp -r "$FROM"/. "$work"
programs=$(dirname "$(realpath "$0")")
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=4 PYTHONPATH=$programs
cd "$work" || exit 1

say() { echo "[$(($(date +%s) - start)) s] $*"; }

# NAME COMMAND...: run before the time is up; its lines are printed and kept in a log. Fails as it does.
attempt() {
    local name=$1 left=$((stop - $(date +%s))) status
    shift
    [ $left -gt 0 ] || { say "$name: no time left"; return 1; }
    timeout $left "$@" 2>&1 | tee -a "$name.log" | sed -u "s|^|$name: |" | cut -c1-900
    status=${PIPESTATUS[0]}
    say "$name: status $status"
    return "$status"
}

# GPU KIND PERCENT FOLDER [options]: once more without graphs if it fails, from what it had saved.
job() {
    local gpu=$1 kind=$2 until=$((start + total * $3 / 100)) folder=$4 program
    shift 4
    mkdir -p "$folder"
    case $kind in
        restok | comit) program=train_$kind.py ;;
        har | next) program="train_ordered.py --kind $kind" ;;
        verifier | judge) program="train_clip.py --kind $kind" ;;
        *) say "no kind '$kind'"; return ;;
    esac
    export CUDA_VISIBLE_DEVICES=$gpu
    set -- "$pack" "$folder" --until "$until" --out "$kind.json" "$@"
    # shellcheck disable=SC2086
    attempt "$folder/$kind" "${PYTHON:-python3}" "$programs"/$program "$@" && return
    [ -e "$folder/$kind.pt" ] && set -- "$@" --init "$folder/$kind.pt"
    [ "$kind" = comit ] && [ -e "$folder/vae.pt" ] && set -- "$@" --vae "$folder/vae.pt"
    # shellcheck disable=SC2086
    attempt "$folder/$kind" "${PYTHON:-python3}" "$programs"/$program "$@" --no-compile
}

folders=
for line in "$@"; do
    # shellcheck disable=SC2086
    set -- $line
    case " $folders " in *" $4 "*) ;; *) folders="$folders $4" ;; esac
    job "$@" &
done
wait
for folder in $folders; do
    tar -cJf "$out/$folder.tar.xz" --exclude=views.pt "$folder"
done
say "done"
ls -l "$out"

#!/bin/sh
# Replays all reference vectors of a folder that this version supports, and names the others:
#   shared.sh FOLDER
# Supported is what stands in the list below; whatever else the folder holds is printed as not
# yet replayed, so that nothing is left out in silence.
folder=$1
replay=${B:-build/release}/tests/golden/replay

supported='text-tokenizers masked-diffusion/llada masked-diffusion/dream masked-diffusion/guided
masked-diffusion/mdlm masked-diffusion/llada_moe masked-diffusion/llada2_moe insertion-lm recurrent-depth
enat restok comit search/verifiers search/clip search/imagereward search/flexar search/flextok'
indexes='masked-diffusion search' # golden.json of a folder of folders

passed=0 failed=0
run() { # NAME
    log=build/shared-replay.log
    "$replay" "$folder/$1" >"$log" 2>&1
    rc=$?
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
    grep '^FAIL' "$log"
    echo "$1: ${line:-no result, status $rc}"
    if [ -z "$line" ] || { [ $rc -ne 0 ] && [ "${line##* 0 failed*}" = "" ]; }; then
        tail -n 20 "$log"
        failed=$((failed + 1))
    fi
    [ -z "$line" ] && return
    ok=${line%% passed*} no=${line#*, }
    passed=$((passed + ok)) failed=$((failed + ${no%% failed*}))
}

[ -x "$replay" ] || { echo "$replay is not built"; echo "0 passed, 1 failed"; exit 1; }
mkdir -p build
for family in $supported; do
    run "$family"
done

find "$folder" -name golden.json | sort | while read -r file; do
    name=${file#"$folder"/}
    name=${name%/golden.json}
    for known in $supported $indexes; do
        [ "$name" != "$known" ] || continue 2
    done
    echo "not yet replayed: $name"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

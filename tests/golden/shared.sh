#!/bin/sh
# Replays all reference vectors of a folder that this version supports, and names the others:
#   shared.sh FOLDER
# Supported is what stands in the lists below; whatever else the folder holds is printed as not
# yet replayed, so that nothing is left out in silence.
folder=$1
replay=${B:-build/release}/tests/golden/replay

masked_cases='tensors llada/* fastdllm/* dllm/* freecache_llada/*'
supported='text-tokenizers masked-diffusion masked-diffusion/llada masked-diffusion/dream masked-diffusion/guided'
supported="$supported masked-diffusion/mdlm masked-diffusion/llada_moe masked-diffusion/llada2_moe"

passed=0 failed=0
run() { # NAME CASE FOLDER
    log=build/shared-replay.log
    "$replay" --case "$2" "$3" >"$log" 2>&1
    rc=$?
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
    grep '^FAIL' "$log"
    echo "$1 $2: ${line:-no result, status $rc}"
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
run text-tokenizers '*' "$folder/text-tokenizers"
set -f
for c in $masked_cases; do
    run masked-diffusion/llada "$c" "$folder/masked-diffusion/llada"
done
set +f
run masked-diffusion/dream '*' "$folder/masked-diffusion/dream"
for f in mdlm llada_moe llada2_moe; do
    run "masked-diffusion/$f" '*' "$folder/masked-diffusion/$f"
done
run masked-diffusion/guided tensors "$folder/masked-diffusion/guided"
run masked-diffusion/guided 'guided/*' "$folder/masked-diffusion/guided"

find "$folder" -name golden.json | sort | while read -r file; do
    name=${file#"$folder"/}
    name=${name%/golden.json}
    case " $supported " in
    *" $name "*) ;;
    *) echo "not yet replayed: $name" ;;
    esac
done
# Cases of a supported folder whose samplers are still to come.
echo "not yet replayed: masked-diffusion/llada: other cases than $masked_cases"
echo "not yet replayed: masked-diffusion/guided: freecache_dream/early_stop"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

#!/bin/sh
# Replays all reference vectors of a folder that this version supports, and names the others:
#   shared.sh FOLDER
# Supported is what stands in the lists below; whatever else the folder holds is printed as not
# yet replayed, so that nothing is left out in silence.
folder=$1
replay=${B:-build/release}/tests/golden/replay

supported='text-tokenizers masked-diffusion masked-diffusion/llada masked-diffusion/dream masked-diffusion/guided'
supported="$supported masked-diffusion/mdlm masked-diffusion/llada_moe masked-diffusion/llada2_moe"
supported="$supported insertion-lm recurrent-depth enat restok comit"
supported="$supported search search/verifiers search/clip search/imagereward"

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
run enat '*' "$folder/enat"
for family in llada dream guided mdlm llada_moe llada2_moe; do
    run masked-diffusion/$family '*' "$folder/masked-diffusion/$family"
done
run recurrent-depth '*' "$folder/recurrent-depth"

run insertion-lm '*' "$folder/insertion-lm"
run recurrent-depth '*' "$folder/recurrent-depth"
for family in restok comit search/verifiers search/clip search/imagereward; do
    run $family '*' "$folder/$family"
done
# Searches and the generator, not yet the pictures FlexTok makes of its tokens.
run search/flexar '*' "$folder/search/flexar"

find "$folder" -name golden.json | sort | while read -r file; do
    name=${file#"$folder"/}
    name=${name%/golden.json}
    case " $supported " in
    *" $name "*) ;;
    *) echo "not yet replayed: $name" ;;
    esac
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]

#!/usr/bin/env bash
# The whole recipe on synthetic radiographs: corpus, backbones, stage 1, stage 2, evaluation, table.
#   ATTENTION_MODE=block (default), prefix or full
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_env

DEMO="${DEMO:-$ROOT/exp/demo}"
SEED="${SEED:-0}"
TRAIN_CASES="${TRAIN_CASES:-12000}"
TEST_CASES="${TEST_CASES:-240}"
NPROC="${NPROC:-2}"
[[ $# -eq 0 ]] || die "demo.sh takes no arguments; its settings are variables: $(sed -n 's/^\([A-Z_]*\)=.*/\1/p' "$0" | tr '\n' ' ')"
for name in TRAIN_CASES TEST_CASES NPROC; do need_whole "$name" 1; done

# On a CPU with bf16 instructions, half the time; on others bf16 would be slower than fp32.
if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2>/dev/null; then BF16="${BF16:-true}"; fi
export BF16="${BF16:-false}"
PRECISION=()
if [[ "$BF16" == true ]]; then PRECISION=(--bf16); fi

# Mode block learns from every token of a text, so that far fewer steps do, and it needs no canvas.
# With few layers more steps fit into the same minutes; both backbones take about equally long.
CANVAS="${CANVAS:-64}"
ATTENTION_MODE="${ATTENTION_MODE:-block}"
case "$ATTENTION_MODE" in
  block)
    OBJECTIVE=hybrid FILL=block
    VISION_LAYERS="${VISION_LAYERS:-4}" VISION_EPOCHS="${VISION_EPOCHS:-7}"
    LANGUAGE_LAYERS="${LANGUAGE_LAYERS:-3}" LANGUAGE_EPOCHS="${LANGUAGE_EPOCHS:-0.62}"
    STAGE2_EPOCHS="${STAGE2_EPOCHS:-0.82}" BLOCK_LENGTH="${BLOCK_LENGTH:-8}"
    DECODING=(GEN_KWARGS="decoder=${DECODER:-speculative}") ;;
  full | prefix)
    OBJECTIVE=masked FILL=canvas
    VISION_LAYERS="${VISION_LAYERS:-6}" VISION_EPOCHS="${VISION_EPOCHS:-6.5}"
    LANGUAGE_LAYERS="${LANGUAGE_LAYERS:-6}" LANGUAGE_EPOCHS="${LANGUAGE_EPOCHS:-0.66}"
    STAGE2_EPOCHS="${STAGE2_EPOCHS:-2}" BLOCK_LENGTH="${BLOCK_LENGTH:-4}"
    DECODING=(STEPS="${STEPS:-$CANVAS}") ;;
  *) die "ATTENTION_MODE=$ATTENTION_MODE: choose block, prefix or full" ;;
esac

PHANTOM="$DEMO/phantom"
BACKBONES="$DEMO/backbones"
SECONDS=0
share_cores "$NPROC"
cd "$ROOT"
stage() { log "$(printf '%4d s' "$SECONDS")  $1"; }
rm -rf "$DEMO/stage1" "$DEMO/stage2" "$DEMO/evaluation" "$DEMO/evaluation_blank"

stage "1/6 corpus: $((TRAIN_CASES + TEST_CASES)) synthetic radiographs"
"$PYTHON" -m llava.phantom --output "$PHANTOM" --overwrite --seed "$SEED" --size 128 \
  --train "$TRAIN_CASES" --val 100 --test "$TEST_CASES" --workers "$NPROC"
"$PYTHON" -m llava.data.mimic_cxr --annotation "$PHANTOM/annotation_with_clinic_info.json" \
  --image-root "$PHANTOM" --output "$DEMO/data" --overwrite

export DATA_PATH="$DEMO/data/train_llave_llada.json" IMAGE_FOLDER="$PHANTOM"
export LANGUAGE_MODEL="$BACKBONES/language" VISION_TOWER="$BACKBONES/vision"

# Both at once, one core each. Trained once: kept for the next run with the same corpus.
stage "2/6 backbones: stand-ins for SigLIP2 and the diffusion Qwen3"
pretrain() {
  local part="$1" folder="$BACKBONES/$1"
  local settings=("${@:2}" --seed "$SEED")
  local made="$TRAIN_CASES cases ${settings[*]}"
  if [[ -f "$folder/made" && "$(cat "$folder/made")" == "$made" ]]; then
    log "$part: kept from an earlier run in $folder"
    return
  fi
  rm -rf "$folder"
  "$PYTHON" -m llava.phantom.backbones "$part" --data-path "$DATA_PATH" \
    --image-folder "$IMAGE_FOLDER" --output "$folder" "${settings[@]}" "${PRECISION[@]}"
  echo "$made" >"$folder/made"
}
# Patches of 20 give 36 tokens where SigLIP's 14 would give 64: more passes over the images in the
# same time teach so small a tower more, and every later step is shorter.
pretrain vision --layers "$VISION_LAYERS" --epochs "$VISION_EPOCHS" --batch-size 64 \
  --image-size 120 --patch-size 20 & vision=$!
pretrain language --layers "$LANGUAGE_LAYERS" --epochs "$LANGUAGE_EPOCHS" --objective "$OBJECTIVE" & language=$!
wait "$vision"
wait "$language"

# The recipe's schedule at a size where 1e-5 would not move anything in minutes.
export NPROC SEED ATTENTION_MODE
export GLOBAL_BATCH_SIZE=16 BATCH_SIZE=$((16 / NPROC))
export WORKERS=0 LOGGING_STEPS=20 SAVE_STEPS=10000
SMALL=(--answer_canvas "$CANVAS" --answer_fill "$FILL" --muon_lr "${MUON_LR:-3e-3}" --loss_weighting uniform
  --stratified_t true --t_power "${T_POWER:-3}")

stage "3/6 stage 1: the projector"
OUTPUT_DIR="$DEMO/stage1" EPOCHS="${STAGE1_EPOCHS:-0.1}" \
  bash train/scripts/llada_v_pretrain.sh "${SMALL[@]}"

stage "4/6 stage 2: vision tower, projector and language model"
OUTPUT_DIR="$DEMO/stage2" PROJECTOR="$DEMO/stage1" EPOCHS="$STAGE2_EPOCHS" \
  LEARNING_RATE="${LEARNING_RATE:-3e-3}" VISION_TOWER_LR="${VISION_TOWER_LR:-1e-3}" \
  bash train/scripts/llada_v_finetune.sh "${SMALL[@]}"

stage "5/6 evaluation: the test phantoms, then the same prompts with a blank image"
"$PYTHON" -m llava.phantom.blank --data-path "$DEMO/data/test_llave_llada.json" \
  --output "$DEMO/blank"
evaluate() {
  NPROC=$((NPROC > 1 ? NPROC / 2 : 1)) BATCH_SIZE=40 \
    MODEL_PATH="$DEMO/stage2" DATA_PATH="$1" IMAGE_FOLDER="$2" OUTPUT="$3" \
    GEN_LENGTH="$CANVAS" BLOCK_LENGTH="$BLOCK_LENGTH" \
    env "${DECODING[@]}" bash eval/scripts/evaluate.sh
}
# Both at once: half of the time is imports.
BLANK_LOG="$DEMO/evaluation_blank.log"
evaluate "$DEMO/blank/test_llave_llada.json" "$DEMO/blank" "$DEMO/evaluation_blank" \
  &>"$BLANK_LOG" & blank=$!
evaluate "$DEMO/data/test_llave_llada.json" "$PHANTOM" "$DEMO/evaluation" \
  || { wait "$blank" || true; die "the evaluation of the test phantoms failed"; }
wait "$blank" || die "the evaluation with a blank image failed: $(tail -n 20 "$BLANK_LOG")"

stage "6/6 findings: what the reports say against what was drawn"
"$PYTHON" -m llava.phantom.results --run "$DEMO/evaluation" --blank "$DEMO/evaluation_blank" \
  --annotation "$PHANTOM/annotation_with_clinic_info.json" --image-folder "$PHANTOM" \
  --output "$DEMO" --seconds "$SECONDS"
log "results: $DEMO/results.json   examples: $DEMO/examples.png   page: $DEMO/evaluation/report.html"

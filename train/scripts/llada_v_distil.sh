#!/usr/bin/env bash
# After stage 2: the model writes the reports of its training images, and goes on training with those
# that say what the references say. It then needs fewer passes for a report (docs/decoding.md).
#   cd train && CHECKPOINT=../exp/stage2 bash scripts/llada_v_distil.sh
set -euo pipefail

data_path="${DATA_PATH:-../data/train_llave_llada.json}"
image_folder="${IMAGE_FOLDER:-}"  # of a JSON; empty: ../data/mimic_cxr/files. A YAML names its own.

CHECKPOINT="${CHECKPOINT:-../exp/stage2}"
OUTPUT_DIR="${OUTPUT_DIR:-../exp/distilled}"
REPORTS="${REPORTS:-$OUTPUT_DIR-reports}"          # where the reports go: train.yaml and an evaluation
LABELER="${LABELER:-chexpert}"                     # how findings are read; phantom for the demo's
GEN_LENGTH="${GEN_LENGTH:-128}"                    # canvas, the same as in training
BLOCK_LENGTH="${BLOCK_LENGTH:-8}"                  # decoded together; GEN_LENGTH is a multiple of it
GEN_KWARGS="${GEN_KWARGS:-threshold=0.9}"
REPORT_BATCH_SIZE="${REPORT_BATCH_SIZE:-8}"        # reports at once, per process
REPORT_DTYPE="${REPORT_DTYPE:-}"                   # empty: bfloat16 on GPUs, float32 on a CPU

DATA_PATH="$data_path" IMAGE_FOLDER="$image_folder" VIDEO_FOLDER=""
LANGUAGE_MODEL="$CHECKPOINT" VISION_TOWER=""       # a checkpoint has its own tower and projector
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
for name in GEN_LENGTH BLOCK_LENGTH REPORT_BATCH_SIZE; do need_whole "$name" 1; done
# Of training, which begins after hours of writing reports.
for name in EPOCHS LEARNING_RATE VISION_TOWER_LR WEIGHT_DECAY; do need_number "$name"; done
(( NNODES == 1 )) || die "self-distillation runs on one node; NNODES=$NNODES"

# As the checkpoint was trained; anything else would be refused, after hours of writing reports.
ATTENTION_MODE="${ATTENTION_MODE:-$("$PYTHON" -c \
  'import json, sys; print(json.load(open(sys.argv[1]))["attention_mode"])' "$CHECKPOINT/config.json" 2>/dev/null)}" \
  || die "CHECKPOINT=$CHECKPOINT has no config.json with an attention_mode; give the folder of stage 2"

log "1/3 the model's own reports of the training images"
MODEL_PATH="$CHECKPOINT" DATA_PATH="$DATA_PATH" IMAGE_FOLDER="$IMAGE_FOLDER" OUTPUT="$REPORTS/evaluation" \
  GEN_LENGTH="$GEN_LENGTH" BLOCK_LENGTH="$BLOCK_LENGTH" GEN_KWARGS="$GEN_KWARGS" \
  BATCH_SIZE="$REPORT_BATCH_SIZE" NPROC="$NPROC" STEPS="$GEN_LENGTH" BASELINES="" TRAIN_DATA="" \
  bash "$ROOT/eval/scripts/evaluate.sh" ${REPORT_DTYPE:+--dtype "$REPORT_DTYPE"}

log "2/3 those that may replace their reference"
"$PYTHON" -m llava.train.self_distillation --run "$REPORTS/evaluation" --output "$REPORTS" \
  --labeler "$LABELER" --overwrite

log "3/3 training goes on from $CHECKPOINT"
DATA_PATH="$REPORTS/train.yaml" IMAGE_FOLDER=""
launch_training \
  --mm_tunable_parts mm_vision_tower,mm_mlp_adapter,mm_language_model \
  --answer_canvas "$GEN_LENGTH" \
  --learning_rate "${LEARNING_RATE:-2e-6}" \
  --mm_vision_tower_lr "${VISION_TOWER_LR:-4e-7}" \
  "$@"

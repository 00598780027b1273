#!/usr/bin/env bash
# Stage 3: the model writes several reports of each image and learns from those that a clinical
# reward prefers (docs/reward.md). CHECKPOINT was trained in mode block.
#   cd train && CHECKPOINT=../exp/stage2 bash scripts/llada_v_reward.sh
set -euo pipefail

data_path="${DATA_PATH:-../data/train_llave_llada.json}"
image_folder="${IMAGE_FOLDER:-}"  # of a JSON; empty: ../data/mimic_cxr/files. A YAML names its own.

CHECKPOINT="${CHECKPOINT:-../exp/stage2}"
OUTPUT_DIR="${OUTPUT_DIR:-../exp/stage3}"
REWARDS="${REWARDS:-findings=1,rouge_l=1}"  # name=weight, comma-separated
GROUP_SIZE="${GROUP_SIZE:-8}"               # reports of each image
GEN_LENGTH="${GEN_LENGTH:-128}"             # longest report in tokens
MAX_STEPS="${MAX_STEPS:-500}"
EVAL_DATA_PATH="${EVAL_DATA_PATH:-}"        # held-out samples; empty: none are written
EVAL_STEPS="${EVAL_STEPS:-50}"
BATCH_SIZE="${BATCH_SIZE:-4}"               # images at once, per process

DATA_PATH="$data_path" IMAGE_FOLDER="$image_folder" VIDEO_FOLDER=""
LANGUAGE_MODEL="$CHECKPOINT" VISION_TOWER=""  # a checkpoint has its own tower and projector
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need_whole GROUP_SIZE 2
for name in GEN_LENGTH MAX_STEPS EVAL_STEPS; do need_whole "$name" 1; done
[[ -f "$CHECKPOINT/config.json" ]] \
  || die "CHECKPOINT=$CHECKPOINT has no config.json; give the folder of stage 2, trained in mode block"

TRAIN_MODULE=llava.reward.train
launch_training \
  --mm_tunable_parts mm_mlp_adapter,mm_language_model \
  --rewards "$REWARDS" \
  --group_size "$GROUP_SIZE" \
  --answer_canvas "$GEN_LENGTH" \
  --max_steps "$MAX_STEPS" \
  --learning_rate "${LEARNING_RATE:-1e-6}" \
  ${EVAL_DATA_PATH:+--eval_data_path "$EVAL_DATA_PATH" --eval_strategy steps --eval_steps "$EVAL_STEPS"} \
  "$@"

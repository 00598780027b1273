#!/usr/bin/env bash
# Writes the report of every test sample with all processes on the one task, and prints the metrics.
# Killed, the same command continues.
#   cd eval && MODEL_PATH=... DATA_PATH=... IMAGE_FOLDER=... bash scripts/evaluate.sh [--overwrite]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.sh"

MODEL_PATH="${MODEL_PATH:-$ROOT/exp/stage2}"                # a checkpoint folder
TASK="${TASK:-mimic_cxr}"                                   # a YAML of eval/tasks: the dataset
DATA_PATH="${DATA_PATH:-}"                                  # other data: conversations JSON or dataset YAML
IMAGE_FOLDER="${IMAGE_FOLDER:-}"                            # where the image paths of a JSON start
OUTPUT="${OUTPUT:-$ROOT/exp/evaluation}"                    # results.json, predictions.jsonl
GEN_LENGTH="${GEN_LENGTH:-128}"                             # tokens of the canvas
BLOCK_LENGTH="${BLOCK_LENGTH:-8}"                           # decoded together, left to right; divides GEN_LENGTH
STEPS="${STEPS:-$GEN_LENGTH}"                               # denoising steps for the whole canvas
GEN_KWARGS="${GEN_KWARGS:-}"                                # e.g. temperature=0.5,cfg_scale=1.5
BATCH_SIZE="${BATCH_SIZE:-8}"                               # reports at once, per process
NPROC="${NPROC:-}"                                          # empty: one per GPU, or one on the CPU
BASELINES="${BASELINES:-}"                                  # any of: normal nearest blank
TRAIN_DATA="${TRAIN_DATA:-}"                                # training split, for normal and nearest

need_env
exec "$PYTHON" -m llava.eval.evaluate \
  --model-path "$MODEL_PATH" \
  --task "$TASK" ${DATA_PATH:+--data-path "$DATA_PATH"} \
  ${IMAGE_FOLDER:+--image-folder "$IMAGE_FOLDER"} \
  --output "$OUTPUT" \
  --gen-length "$GEN_LENGTH" --block-length "$BLOCK_LENGTH" --steps "$STEPS" \
  --gen-kwargs "$GEN_KWARGS" \
  --batch-size "$BATCH_SIZE" ${NPROC:+--nproc "$NPROC"} \
  ${BASELINES:+--baselines $BASELINES} ${TRAIN_DATA:+--train-data "$TRAIN_DATA"} \
  "$@"

#!/usr/bin/env bash
# Writes the report of every test sample with all processes on the one task, and prints the metrics.
#   cd eval && MODEL_PATH=... DATA_PATH=... IMAGE_FOLDER=... bash scripts/evaluate.sh [--overwrite]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.sh"

MODEL_PATH="${MODEL_PATH:-$ROOT/exp/stage2}"                # a checkpoint folder
DATA_PATH="${DATA_PATH:-$ROOT/data/test_llave_llada.json}"  # a conversations JSON or a dataset YAML
OUTPUT="${OUTPUT:-$ROOT/exp/evaluation}"                    # results.json, predictions.jsonl
GEN_LENGTH="${GEN_LENGTH:-128}"                             # tokens of the canvas
BLOCK_LENGTH="${BLOCK_LENGTH:-$GEN_LENGTH}"                 # decoded together, left to right
STEPS="${STEPS:-$GEN_LENGTH}"                               # denoising steps for the whole canvas
GEN_KWARGS="${GEN_KWARGS:-}"                                # e.g. temperature=0.5,cfg_scale=1.5
BATCH_SIZE="${BATCH_SIZE:-8}"                               # reports at once, per process
NPROC="${NPROC:-}"                                          # empty: one per GPU, or one on the CPU
case "$DATA_PATH" in
  *.yaml | *.yml) IMAGE_FOLDER="${IMAGE_FOLDER:-}" ;;       # the YAML names its own
  *) IMAGE_FOLDER="${IMAGE_FOLDER:-$ROOT/data/mimic_cxr/files}" ;;
esac

need_env
exec "$PYTHON" -m llava.eval.evaluate \
  --model-path "$MODEL_PATH" \
  --data-path "$DATA_PATH" ${IMAGE_FOLDER:+--image-folder "$IMAGE_FOLDER"} \
  --output "$OUTPUT" \
  --gen-length "$GEN_LENGTH" --block-length "$BLOCK_LENGTH" --steps "$STEPS" \
  --gen-kwargs "$GEN_KWARGS" \
  --batch-size "$BATCH_SIZE" ${NPROC:+--nproc "$NPROC"} \
  "$@"

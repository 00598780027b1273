#!/usr/bin/env bash
# Stage 2: load the projector of stage 1, train vision tower, projector and language model.
set -euo pipefail

data_path="${DATA_PATH:-../data/train_llave_llada.json}"
image_folder="${IMAGE_FOLDER:-}"  # of a JSON; empty: ../data/mimic_cxr/files. A YAML names its own.
video_folder="${VIDEO_FOLDER:-}"

LANGUAGE_MODEL="${LANGUAGE_MODEL:-dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1}"
VISION_TOWER="${VISION_TOWER:-google/siglip2-so400m-patch14-384}"
PROJECTOR="${PROJECTOR:-../exp/stage1}"
OUTPUT_DIR="${OUTPUT_DIR:-../exp/stage2}"

DATA_PATH="$data_path" IMAGE_FOLDER="$image_folder" VIDEO_FOLDER="$video_folder"
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

launch_training \
  --mm_tunable_parts mm_vision_tower,mm_mlp_adapter,mm_language_model \
  --pretrain_mm_mlp_adapter "$PROJECTOR" \
  --learning_rate "${LEARNING_RATE:-1e-5}" \
  --mm_vision_tower_lr "${VISION_TOWER_LR:-2e-6}" \
  "$@"

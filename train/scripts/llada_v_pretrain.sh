#!/usr/bin/env bash
# Stage 1: train the projector alone; vision tower and language model are frozen.
set -euo pipefail

data_path="${DATA_PATH:-../data/train_llave_llada.json}"
image_folder="${IMAGE_FOLDER:-}"  # of a JSON; empty: ../data/mimic_cxr/files. A YAML names its own.
video_folder="${VIDEO_FOLDER:-}"

LANGUAGE_MODEL="${LANGUAGE_MODEL:-dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1}"
VISION_TOWER="${VISION_TOWER:-google/siglip2-so400m-patch14-384}"
OUTPUT_DIR="${OUTPUT_DIR:-../exp/stage1}"

DATA_PATH="$data_path" IMAGE_FOLDER="$image_folder" VIDEO_FOLDER="$video_folder"
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

launch_training \
  --mm_tunable_parts mm_mlp_adapter \
  --learning_rate "${LEARNING_RATE:-1e-3}" \
  "$@"

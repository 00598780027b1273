#!/usr/bin/env bash
# Sourced by the stage scripts: how many processes, which precision, and the command itself.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.sh"
need_env

case "$DATA_PATH" in
  *.yaml | *.yml) ;;
  *) IMAGE_FOLDER="${IMAGE_FOLDER:-../data/mimic_cxr/files}" ;;
esac

GPUS="$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())')"
if [[ "$GPUS" -gt 0 ]]; then
  NPROC="${NPROC:-$GPUS}"
  DEVICE_FLAGS=(--bf16 "${BF16:-true}" --tf32 "${TF32:-true}")
else
  NPROC="${NPROC:-1}"
  DEVICE_FLAGS=(--use_cpu true --bf16 "${BF16:-false}")
  export ACCELERATE_USE_CPU=true
fi
share_cores "$NPROC"

GLOBAL_BATCH_SIZE="${GLOBAL_BATCH_SIZE:-64}"
BATCH_SIZE="${BATCH_SIZE:-8}"
PROCESSES=$(( NPROC * ${NNODES:-1} ))
if (( GLOBAL_BATCH_SIZE % (BATCH_SIZE * PROCESSES) )); then
  log "GLOBAL_BATCH_SIZE=$GLOBAL_BATCH_SIZE is not a multiple of BATCH_SIZE=$BATCH_SIZE times $PROCESSES processes"
  exit 2
fi

launch_training() {
  local command=("$PYTHON" -m torch.distributed.run --nproc-per-node "$NPROC"
    --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}"
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}")
  if [[ "${NNODES:-1}" -eq 1 ]]; then
    command=("$PYTHON" -m torch.distributed.run --standalone --nproc-per-node "$NPROC")
  fi
  if [[ "$PROCESSES" -eq 1 ]]; then
    command=("$PYTHON")
  fi
  "${command[@]}" -m llava.train.train \
    --model_name_or_path "$LANGUAGE_MODEL" \
    --vision_tower "$VISION_TOWER" \
    --version "${VERSION:-qwen}" \
    --attention_mode "${ATTENTION_MODE:-full}" \
    --loss_weighting "${LOSS_WEIGHTING:-elbo}" \
    --mm_projector_type mlp2x_gelu \
    --mm_vision_select_layer -2 \
    --data_path "$DATA_PATH" \
    --image_folder "$IMAGE_FOLDER" \
    --video_folder "$VIDEO_FOLDER" \
    --model_max_length "${MODEL_MAX_LENGTH:-8192}" \
    --num_train_epochs "${EPOCHS:-1}" \
    --per_device_train_batch_size "$BATCH_SIZE" \
    --gradient_accumulation_steps "$(( GLOBAL_BATCH_SIZE / (BATCH_SIZE * PROCESSES) ))" \
    --lr_scheduler_type cosine \
    --warmup_steps 0.03 \
    --weight_decay "${WEIGHT_DECAY:-0}" \
    --logging_steps "${LOGGING_STEPS:-1}" \
    --save_steps "${SAVE_STEPS:-500}" \
    --save_total_limit 1 \
    --dataloader_num_workers "${WORKERS:-4}" \
    --gradient_checkpointing "${GRADIENT_CHECKPOINTING:-false}" \
    --report_to "${REPORT_TO:-tensorboard}" \
    --ddp_broadcast_buffers false \
    --seed "${SEED:-0}" \
    --output_dir "$OUTPUT_DIR" \
    "${DEVICE_FLAGS[@]}" \
    "$@"
}

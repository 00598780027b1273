#!/usr/bin/env bash
# Sourced by the stage scripts: how many processes on which nodes, which precision, and the command.
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
  export THP_MEM_ALLOC_ENABLE="${THP_MEM_ALLOC_ENABLE:-1}"  # torch: large tensors in huge pages
fi

need_whole NPROC 1

# Inside a SLURM step (srun) the nodes are SLURM's, unless NNODES, NODE_RANK or MASTER_ADDR say
# otherwise. A task per node starts its node's processes; more tasks than nodes are the processes.
NNODES="${NNODES:-${SLURM_STEP_NUM_NODES:-1}}"
NODE_RANK="${NODE_RANK:-${SLURM_NODEID:-0}}"
need_whole NNODES 1
need_whole NODE_RANK 0 "$(( NNODES - 1 ))"
if [[ -z "${MASTER_ADDR:-}" && -n "${SLURM_STEP_NODELIST:-}" ]]; then
  MASTER_ADDR="$(scontrol show hostnames "$SLURM_STEP_NODELIST")"
  MASTER_ADDR="${MASTER_ADDR%%$'\n'*}"  # the first of them
fi
export MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}"
# Of the job, so that two jobs on a node do not meet; 29500 outside SLURM.
export MASTER_PORT="${MASTER_PORT:-$(( 20000 + ${SLURM_JOB_ID:-9500} % 20000 ))}"
need_whole MASTER_PORT 1 65535
PROCESSES=$(( NPROC * NNODES ))
TASKS="${SLURM_STEP_NUM_TASKS:-1}"
if (( TASKS > NNODES )); then
  PROCESSES="$TASKS"
  NPROC=$(( TASKS / NNODES ))
  export RANK="$SLURM_PROCID" WORLD_SIZE="$TASKS"
  export LOCAL_RANK="$(( SLURM_LOCALID % (GPUS > 0 ? GPUS : TASKS) ))"  # 0 where a task sees one GPU
fi
share_cores "$NPROC"

GLOBAL_BATCH_SIZE="${GLOBAL_BATCH_SIZE:-64}"
BATCH_SIZE="${BATCH_SIZE:-8}"
need_whole GLOBAL_BATCH_SIZE 1
need_whole BATCH_SIZE 1
if (( GLOBAL_BATCH_SIZE % (BATCH_SIZE * PROCESSES) )); then
  die "GLOBAL_BATCH_SIZE=$GLOBAL_BATCH_SIZE is not a multiple of BATCH_SIZE=$BATCH_SIZE times $PROCESSES processes"
fi

launch_training() {
  local command=("$PYTHON" -m llava.train.launch --nproc-per-node "$NPROC" --nnodes "$NNODES"
    --node-rank "$NODE_RANK" --master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT")
  if (( NNODES == 1 )); then
    command=("$PYTHON" -m llava.train.launch --standalone --nproc-per-node "$NPROC")
  fi
  if (( PROCESSES == 1 || TASKS > NNODES )); then
    command=("$PYTHON")
  fi
  # exec, so that a signal to this script reaches the run, and the run's exit code the caller.
  exec "${command[@]}" -m "${TRAIN_MODULE:-llava.train.train}" \
    --model_name_or_path "$LANGUAGE_MODEL" \
    --vision_tower "$VISION_TOWER" \
    --version "${VERSION:-qwen}" \
    ${ATTENTION_MODE:+--attention_mode "$ATTENTION_MODE"} \
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
    --save_total_limit "${SAVE_TOTAL_LIMIT:-2}" \
    --dataloader_num_workers "${WORKERS:-4}" \
    --gradient_checkpointing "${GRADIENT_CHECKPOINTING:-false}" \
    --report_to "${REPORT_TO:-tensorboard}" \
    --ddp_broadcast_buffers false \
    --seed "${SEED:-0}" \
    --output_dir "$OUTPUT_DIR" \
    "${DEVICE_FLAGS[@]}" \
    "$@"
}

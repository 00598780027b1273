#!/usr/bin/env bash
# After demo.sh: the demo's model goes on with its own reports of part of its training phantoms.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_env

DEMO="${DEMO:-$ROOT/exp/demo}"
CANVAS="${CANVAS:-64}"   # as in demo.sh
SHARE="${SHARE:-40%}"    # of the training phantoms
[[ $# -eq 0 ]] || die "demo_distil.sh takes no arguments; its settings are variables: DEMO CANVAS SHARE"
[[ -f "$DEMO/stage2/model.safetensors" ]] || die "$DEMO holds no finished demo: run scripts/demo.sh first"

if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2>/dev/null; then BF16="${BF16:-true}"; fi
export BF16="${BF16:-false}"
if [[ "$BF16" == true ]]; then export REPORT_DTYPE=bfloat16; fi

cat >"$DEMO/data/share.yaml" <<YAML
datasets:
  - json_path: train_llave_llada.json
    image_folder: ../phantom
    sampling: first:$SHARE
YAML

export NPROC="${NPROC:-2}"
need_whole NPROC 1
export GLOBAL_BATCH_SIZE=16 BATCH_SIZE=$((16 / NPROC)) WORKERS=0 LOGGING_STEPS=20 SAVE_STEPS=10000
CHECKPOINT="$DEMO/stage2" OUTPUT_DIR="$DEMO/distilled" DATA_PATH="$DEMO/data/share.yaml" \
  LABELER=phantom GEN_LENGTH="$CANVAS" \
  REPORT_BATCH_SIZE=40 LEARNING_RATE="${LEARNING_RATE:-2e-4}" VISION_TOWER_LR="${VISION_TOWER_LR:-7e-5}" \
  bash "$ROOT/train/scripts/llada_v_distil.sh" --muon_lr "${MUON_LR:-2e-4}" \
  --loss_weighting uniform --stratified_t true --t_power 3

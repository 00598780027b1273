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
LABELER="${LABELER:-chexpert}"                     # how findings are read: chexpert, phantom (the demo's), or none
GEN_LENGTH="${GEN_LENGTH:-128}"                    # canvas, the same as in training
BLOCK_LENGTH="${BLOCK_LENGTH:-}"                   # decoded together; empty: the checkpoint's, or 8
GEN_KWARGS="${GEN_KWARGS:-}"                       # empty: decoder=speculative in mode block, else threshold=0.9
REPORT_BATCH_SIZE="${REPORT_BATCH_SIZE:-8}"        # reports at once, per process
REPORT_DTYPE="${REPORT_DTYPE:-}"                   # empty: bfloat16 on GPUs, float32 on a CPU
# Terms that lower the number of passes further (docs/training.md, "Fewer passes"). The first two are
# of mode block.
DRAFT_WEIGHT="${DRAFT_WEIGHT:-0}"                  # of the drafts' divergence from the causal reading
MASKED_BLOCK_SHARE="${MASKED_BLOCK_SHARE:-0}"      # of samples in wholly masked blocks; LOSS_WEIGHTING=uniform
CERTAINTY_WEIGHT="${CERTAINTY_WEIGHT:-0}"          # of the entropy of masked tokens that are right

DATA_PATH="$data_path" IMAGE_FOLDER="$image_folder" VIDEO_FOLDER=""
LANGUAGE_MODEL="$CHECKPOINT" VISION_TOWER=""       # a checkpoint has its own tower and projector
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
(( NNODES == 1 )) || die "self-distillation runs on one node; NNODES=$NNODES"
[[ -f "$CHECKPOINT/config.json" ]] \
  || die "CHECKPOINT=$CHECKPOINT has no config.json; give the folder of stage 2"

# Attention mode, image layout and so on: as the checkpoint was trained.
trained="$("$PYTHON" -c 'import sys; from pathlib import Path
from llava.train.initial_model import built_in_options
print(*built_in_options(Path(sys.argv[1])))' "$CHECKPOINT")" \
  || die "CHECKPOINT=$CHECKPOINT is not a checkpoint of stage 2"
read -ra TRAINED <<<"$trained"
case " $trained " in *" --attention_mode block "*) by_mode="decoder=speculative" ;; *) by_mode="threshold=0.9" ;; esac
GEN_KWARGS="${GEN_KWARGS:-$by_mode}"
if [[ -z "$BLOCK_LENGTH" ]]; then
  BLOCK_LENGTH=8
  [[ "$trained" =~ --block_length\ ([0-9]+) ]] && BLOCK_LENGTH="${BASH_REMATCH[1]}"
fi
for name in GEN_LENGTH BLOCK_LENGTH REPORT_BATCH_SIZE; do need_whole "$name" 1; done

# What training will refuse is refused now, not after hours of writing reports.
for name in EPOCHS LEARNING_RATE VISION_TOWER_LR WEIGHT_DECAY; do need_number "$name"; done
OBJECTIVE=("${TRAINED[@]}" --answer_canvas "$GEN_LENGTH" --draft_weight "$DRAFT_WEIGHT"
  --masked_block_share "$MASKED_BLOCK_SHARE" --certainty_weight "$CERTAINTY_WEIGHT")
"$PYTHON" -c 'from llava.train.options.parsing import check_own_options; check_own_options()' \
  --model_name_or_path "$CHECKPOINT" --data_path "$DATA_PATH" \
  --loss_weighting "${LOSS_WEIGHTING:-elbo}" "${OBJECTIVE[@]}" "$@"

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
  "${OBJECTIVE[@]}" \
  --learning_rate "${LEARNING_RATE:-2e-6}" \
  --mm_vision_tower_lr "${VISION_TOWER_LR:-4e-7}" \
  "$@"

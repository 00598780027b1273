#!/usr/bin/env bash
# The study of docs/results.md: hard phantoms, backbones, every arm under every seed, report.
#   bash bench/study.sh          on a CPU, one job per core
#   bash bench/study.sh --gpu    a larger model on one GPU
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

DEVICE=cpu
if [[ "${1:-}" == --gpu ]]; then DEVICE=cuda; shift; fi
[[ $# -eq 0 ]] || die "study.sh takes --gpu or nothing; its settings are variables: $(sed -n 's/^ *\([A-Z0-9_]*\)="\${.*/\1/p' "$0" | tr '\n' ' ')"
need_env
cd "$ROOT"

cores() { env -u OMP_NUM_THREADS nproc; }  # nproc says OMP_NUM_THREADS where that is set

STEPS="${STEPS:-240}"
SEEDS="${SEEDS:-0,1,2}"
ARMS="${ARMS:-}"
TESTS="${TESTS:-200}"
CANVAS="${CANVAS:-64}"
BATCH_SIZE="${BATCH_SIZE:-8}"
CORPUS_SEED="${CORPUS_SEED:-0}"
GRADIENT_DRAWS="${GRADIENT_DRAWS:-24}"
SECTION="${SECTION:-}"  # write this section of docs/results.md alone
if [[ "$DEVICE" == cuda ]]; then
  "$PYTHON" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' \
    || die "--gpu: torch sees no GPU here; run without --gpu for the study of CPU size"
  STUDY="${STUDY:-$ROOT/exp/study_gpu}"
  RESULTS="${RESULTS:-$STUDY/results}"
  NPROC="${NPROC:-1}"
  BF16="${BF16:-true}"
  TRAIN_CASES="${TRAIN_CASES:-20000}"
  WIDTH="${WIDTH:-384}"
  LAYERS="${LAYERS:-12}"
  IMAGE_SIZE="${IMAGE_SIZE:-168}"
else
  STUDY="${STUDY:-$ROOT/exp/study}"
  RESULTS="${RESULTS:-$ROOT}"
  NPROC="${NPROC:-$(cores)}"
  # On a CPU with bf16 instructions, half the time; on others bf16 would be slower than fp32.
  if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo 2>/dev/null; then BF16="${BF16:-true}"; fi
  BF16="${BF16:-false}"
  TRAIN_CASES="${TRAIN_CASES:-6000}"
  WIDTH="${WIDTH:-128}"
  LAYERS="${LAYERS:-6}"
  IMAGE_SIZE="${IMAGE_SIZE:-112}"
  export OMP_NUM_THREADS=1
fi
VISION_EPOCHS="${VISION_EPOCHS:-5}"
LANGUAGE_EPOCHS="${LANGUAGE_EPOCHS:-1.2}"
PRECISION=()
if [[ "$BF16" == true ]]; then PRECISION=(--bf16); fi

PHANTOM="$STUDY/phantom"
LOGS="$STUDY/logs"
SECONDS=0
mkdir -p "$LOGS"
JOB=(--study "$STUDY" --steps "$STEPS" --batch-size "$BATCH_SIZE" --canvas "$CANVAS"
  --tests "$TESTS" --device "$DEVICE" "${PRECISION[@]}")

# made NAME SETTINGS: whether that part is there already; one made with other settings is an error.
made() {
  local stamp="$STUDY/$1.made"
  [[ -f "$stamp" ]] || return 1
  [[ "$(cat "$stamp")" == "$2" ]] \
    || die "$STUDY holds another study ($1: $(cat "$stamp"); now: $2): choose another STUDY, or delete it"
  log "$1: kept from an earlier run in $STUDY"
}

SETTINGS="steps=$STEPS batch=$BATCH_SIZE canvas=$CANVAS tests=$TESTS bf16=$BF16 device=$DEVICE weights=mean"
made settings "$SETTINGS" || echo "$SETTINGS" >"$STUDY/settings.made"

PICTURE=$((IMAGE_SIZE > 128 ? IMAGE_SIZE : 128))
CORPUS="seed=$CORPUS_SEED cases=$TRAIN_CASES tests=$TESTS size=$PICTURE"
if ! made corpus "$CORPUS"; then
  log "1/4 corpus: $TRAIN_CASES hard phantoms"
  "$PYTHON" -m llava.phantom --output "$PHANTOM" --overwrite --difficulty hard --size "$PICTURE" \
    --seed "$CORPUS_SEED" --train "$TRAIN_CASES" --val 64 --test "$TESTS" --workers "$(cores)"
  "$PYTHON" -m llava.data.mimic_cxr --annotation "$PHANTOM/annotation_with_clinic_info.json" \
    --image-root "$PHANTOM" --output "$STUDY/data" --overwrite
  echo "$CORPUS" >"$STUDY/corpus.made"
fi

log "2/4 backbones: stand-ins for SigLIP2 and the diffusion Qwen3 (logs in $LOGS)"
pretrain() {
  local part="$1" epochs="$2"
  local settings="$CORPUS epochs=$epochs width=$WIDTH layers=$LAYERS image=$IMAGE_SIZE"
  if made "$part" "$settings"; then return; fi
  rm -rf "$STUDY/backbones/$part"
  local kind=("$part")
  if [[ "$part" == hybrid ]]; then kind=(language --objective hybrid); fi
  "$PYTHON" -m llava.phantom.backbones "${kind[@]}" --data-path "$STUDY/data/train_llave_llada.json" \
    --image-folder "$PHANTOM" --output "$STUDY/backbones/$part" --epochs "$epochs" \
    --width "$WIDTH" --layers "$LAYERS" --image-size "$IMAGE_SIZE" \
    "${PRECISION[@]}" &>"$LOGS/backbone_$part.log"
  echo "$settings" >"$STUDY/$part.made"
}
pretrain vision "$VISION_EPOCHS" & vision=$!
pretrain language "$LANGUAGE_EPOCHS" & language=$!
wait "$vision"
wait "$language"
"$PYTHON" -m bench.study.run "${JOB[@]}" --features &>"$LOGS/features.log" & features=$!
for start in $("$PYTHON" -m bench.study.arms --arms "$ARMS" --starts); do
  case "$start" in
    causal)
      "$PYTHON" -m bench.study.autoregressive "${JOB[@]}" --stage pretrain --seed 0 \
        &>"$LOGS/backbone_causal.log" ;;
    hybrid) pretrain hybrid "$LANGUAGE_EPOCHS" ;;
  esac
done
wait "$features"

log "3/4 arms: every training under every seed, $NPROC at once"
"$PYTHON" -m bench.study.pool "${JOB[@]}" --arms "$ARMS" --seeds "$SEEDS" --jobs "$NPROC" \
  --gradient-draws "$GRADIENT_DRAWS"

log "4/4 report"
"$PYTHON" -m bench.study.report --study "$STUDY" --output "$RESULTS" --section "$SECTION"
log "done in $((SECONDS / 60)) minutes: $RESULTS/docs/results.md"

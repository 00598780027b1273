#!/usr/bin/env bash
# Converts MIMIC-CXR's annotation file into the conversations that training and evaluation read.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
ANNOTATION="${ANNOTATION:-$ROOT/data/mimic_cxr/annotation_with_clinic_info.json}"
IMAGE_ROOT="${IMAGE_ROOT:-$ROOT/data/mimic_cxr/files}"
OUTPUT="${OUTPUT:-$ROOT/data}"
source "$ROOT/scripts/common.sh"
need_env

"$PYTHON" -m llava.data.mimic_cxr \
    --annotation "$ANNOTATION" \
    --image-root "$IMAGE_ROOT" \
    --output "$OUTPUT" \
    "$@"

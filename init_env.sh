#!/usr/bin/env bash
# Installs everything that scripts/demo.sh and scripts/test.sh need; a second run changes nothing.
#   bash init_env.sh                   into the active virtual environment, else into .venv here
#   PYTHON=/path/to/python bash init_env.sh      into the environment of that interpreter
# Versions: requirements/constraints.txt. Package indexes and proxies: pip's own settings.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/scripts/common.sh"

VENV="$ROOT/.venv"
DISK_GB=4
CUDA_DISK_GB=12  # the CUDA libraries that torch brings on a machine with an NVIDIA GPU

# is_recent INTERPRETER: Python 3.11 or later, the oldest that the pinned versions accept.
is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local name seen=""
  for name in python3 python3.13 python3.12 python3.11 python; do
    command -v "$name" >/dev/null || continue
    if is_recent "$name"; then
      "$name" -c 'import ensurepip, venv' 2>/dev/null && { command -v "$name"; return; }
      seen+=" $name (has no venv module);"
    else
      seen+=" $name ($("$name" --version 2>&1 || echo 'does not run'));"
    fi
  done
  die "no Python 3.11 or later with the venv module; found:${seen:- none}" \
    "Remedy: on Debian or Ubuntu 'apt install python3 python3-venv' (the package of the same" \
    "version, e.g. python3.11-venv); elsewhere install Python from python.org, conda or pyenv;" \
    "or name an interpreter: PYTHON=/path/to/python bash init_env.sh"
}

# Only .venv is made here; an interpreter that the user named or activated is used as it is.
make_venv() {
  [[ "$PYTHON" == "$VENV/bin/python" ]] || return 0
  if [[ -x "$PYTHON" ]] && "$PYTHON" -m pip --version >/dev/null 2>&1; then return; fi
  local base
  base="$(find_python)"
  log "making $VENV with $base"
  "$base" -m venv "$VENV"
}

check_interpreter() {
  is_recent "$PYTHON" ||
    die "$PYTHON is $("$PYTHON" --version 2>&1 || echo 'no Python'); 3.11 or later is needed." \
      "Remedy: name another with PYTHON=, or remove $VENV if it is that one"
  "$PYTHON" -m pip --version >/dev/null 2>&1 ||
    die "$PYTHON has no pip. Remedy: $PYTHON -m ensurepip (Debian: apt install python3-pip)"
  "$PYTHON" -c 'import os, sys, sysconfig
marker = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
sys.exit(sys.prefix == sys.base_prefix and os.path.exists(marker))' ||
    die "$PYTHON belongs to the operating system, which does not allow installing into it." \
      "Remedy: leave PYTHON unset, and .venv is used"
}

check_disk() {
  local folder="$ROOT" needed="$DISK_GB" free
  [[ "$PYTHON" == "$VENV/bin/python" ]] || folder="$("$PYTHON" -c 'import sys; print(sys.prefix)')"
  if nvidia-smi >/dev/null 2>&1; then needed="$CUDA_DISK_GB"; fi
  free="$(df -Pk "$folder" | awk 'NR == 2 { print $4 }')"
  (( free >= needed * 1024 * 1024 )) ||
    die "$folder has $(( free / 1024 )) MB free and about $needed GB are needed." \
      "Remedy: free some space, or put the environment elsewhere with PYTHON="
}

# torch comes first and in the same command as the rest, so that nothing else chooses its build.
# lmms-eval comes without its own dependency list (pyproject.toml says why).
install() {
  cd "$ROOT" &&
  "$PYTHON" -m pip install --disable-pip-version-check -c requirements/constraints.txt \
    torch -e ".[train,eval,serve,dev]" &&
  "$PYTHON" -m pip install --disable-pip-version-check -c requirements/constraints.txt \
    --no-deps lmms-eval
}

check_imports() {
  log "checking that everything imports together"
  "$PYTHON" -c 'import accelerate, datasets, deepspeed, peft, pycocoevalcap, pydicom, torch
import transformers.models.qwen3, transformers.models.siglip
import lmms_eval.api.model' ||
    die "the packages above do not import together. Remedy: remove what else is installed in this" \
      "environment (a torchvision that does not match torch is the usual cause), or use a fresh one"
}

farewell() {
  log "the environment is ready: $PYTHON"
  if [[ "$PYTHON" == "$VENV/bin/python" && "${VIRTUAL_ENV:-}" != "$VENV" ]]; then
    log "activate it with:  source $VENV/bin/activate   (the scripts find it by themselves)"
  fi
  log "next:  bash scripts/test.sh   or   bash scripts/demo.sh"
}

[[ $# -eq 0 ]] || die "init_env.sh takes no arguments; see the comment at its top"
# One installation at a time (the nodes of a job may share the folder); nothing is written to the file.
if command -v flock >/dev/null; then
  exec 9>>"$ROOT/pyproject.toml"
  flock 9
fi
[[ "$PYTHON" == "$VENV/bin/python" ]] || check_interpreter
if ! environment_stamp check; then
  check_disk
  make_venv
  check_interpreter
  environment_stamp clear
  install || die "the installation stopped (pip's reason is above). Remedy it and run init_env.sh again"
  check_imports
  environment_stamp write
fi
farewell

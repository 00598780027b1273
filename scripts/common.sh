#!/usr/bin/env bash
# Sourced by every script: ROOT, the PYTHON to use, log, die, need_whole, need_number, need_env,
# share_cores.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"

log() { printf '== %s\n' "$*" >&2; }
die() { log "error: $*"; exit 2; }

# need_whole NAME LOW [HIGH]: stop unless the variable NAME holds a whole number in this range.
need_whole() {
  local name="$1" low="$2" high="${3:-}" value="${!1-}"
  # [ ], not (( )), which would take a leading 0 for octal and a word for a variable.
  if ! [[ "$value" =~ ^-?[0-9]{1,12}$ ]] || [ "$value" -lt "$low" ] \
    || { [[ -n "$high" ]] && [ "$value" -gt "$high" ]; }; then
    die "$name=$value is not a whole number of at least $low${high:+ and at most $high}"
  fi
  printf -v "$name" '%s%d' "${value%%[0-9]*}" "$((10#${value#-}))"
}

# need_number NAME: stop unless the variable NAME is empty or holds a number that is not negative.
need_number() {
  local name="$1" value="${!1-}"
  [[ -z "$value" || "$value" =~ ^([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?$ ]] \
    || die "$name=$value: must be a number of at least 0"
}

# PYTHON= wins, then an active virtual environment, then .venv (made by init_env.sh).
choose_python() {
  local found
  if [[ -z "${PYTHON:-}" && -n "${VIRTUAL_ENV:-}" ]]; then
    found="$VIRTUAL_ENV/bin/python"
    [[ -x "$found" ]] || die "the active environment VIRTUAL_ENV=$VIRTUAL_ENV has no bin/python: deactivate it"
  else
    found="${PYTHON:-$ROOT/.venv/bin/python}"
    if [[ "$found" != "$ROOT/.venv/bin/python" ]]; then
      found="$(command -v -- "$PYTHON")" || die "PYTHON=$PYTHON is not a program: name a Python interpreter"
    fi
  fi
  [[ "$found" == /* ]] || found="$PWD/$found"
  export PYTHON="$found"
}

# environment_stamp check: does PYTHON hold this checkout, as today's files describe it?
# environment_stamp write, clear: called by init_env.sh after and before an installation.
environment_stamp() {
  [[ -x "$PYTHON" ]] || return 1
  "$PYTHON" - "$1" "$ROOT" <<'PY'
import sys

if sys.version_info < (3, 11):
    sys.exit(1)
import hashlib
import json
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import unquote

action, root = sys.argv[1], Path(sys.argv[2])
stamp = Path(sys.prefix, "llada-v-qwen.stamp")
sources = ["pyproject.toml", "requirements/constraints.txt", "init_env.sh"]
digest = hashlib.sha256(b"\0".join((root / name).read_bytes() for name in sources)).hexdigest()
if action == "write":
    stamp.write_text(digest)
elif action == "clear":
    stamp.unlink(missing_ok=True)
else:
    origins = [d.read_text("direct_url.json") for d in distributions(name="llada-v-qwen")]
    urls = [json.loads(origin)["url"] for origin in origins if origin]
    here = str(root) in [unquote(url).removeprefix("file://") for url in urls]
    sys.exit(0 if here and stamp.is_file() and stamp.read_text() == digest else 1)
PY
}

# Runs init_env.sh when the environment is missing or stale; INIT_ENV=0 takes it as it is.
need_env() {
  if [[ "${INIT_ENV:-1}" == 0 ]] || environment_stamp check; then
    return
  fi
  log "the environment is missing or older than its description: running init_env.sh"
  bash "$ROOT/init_env.sh"
}

# share_cores N: each of N processes gets its share of the cores, unless OMP_NUM_THREADS is set.
share_cores() {
  local cores
  cores="$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)"
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(( cores > $1 ? cores / $1 : 1 ))}"
}

# Tokenizer threads and forked loader workers do not mix; the library warns at every fork otherwise.
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
choose_python

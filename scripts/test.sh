#!/usr/bin/env bash
# Makes the environment where needed and runs the tests.
#   bash scripts/test.sh                    all but the following
#   bash scripts/test.sh -m whole_scripts   those that run the demo, the training and evaluation scripts, whole
#   bash scripts/test.sh ARGUMENTS          what pytest makes of them, e.g. tests: everything
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_env

TEST_WORKERS="${TEST_WORKERS:-2}"
share_cores "$TEST_WORKERS"
cd "$ROOT"
if [[ $# -eq 0 ]]; then
  log "without the tests that run whole scripts; these: bash scripts/test.sh -m whole_scripts"
  set -- -m "not whole_scripts"
fi
# worksteal: both workers are busy to the end; until then the tests of a file share its fixtures.
exec "$PYTHON" -m pytest -n "$TEST_WORKERS" --dist worksteal "$@"

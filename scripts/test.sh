#!/usr/bin/env bash
# Makes the environment where needed and runs the tests: bash scripts/test.sh [pytest's own flags].
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_env

TEST_WORKERS="${TEST_WORKERS:-2}"
share_cores "$TEST_WORKERS"
cd "$ROOT"
# worksteal: both workers are busy to the end; until then the tests of a file share its fixtures.
exec "$PYTHON" -m pytest -n "$TEST_WORKERS" --dist worksteal "$@"

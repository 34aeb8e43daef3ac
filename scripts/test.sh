#!/usr/bin/env bash
# Lint, format check and tests, as CI runs them.
#   bash scripts/test.sh [pytest options]
set -euo pipefail

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
prepare_environment "[dev]"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest -n auto "$@"

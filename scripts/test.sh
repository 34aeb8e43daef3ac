#!/usr/bin/env bash
# Lint, format check, import contract, types and tests, as CI runs them.
#   bash scripts/test.sh [pytest options]
set -euo pipefail

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
prepare_environment "[dev]"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -c 'from importlinter.cli import lint_imports_command as run; run(["--no-cache"])'
"$PYTHON" -m mypy
exec "$PYTHON" -m pytest -n auto "$@"

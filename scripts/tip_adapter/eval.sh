#!/usr/bin/env bash
# Test a finished run of TipAdapter on another dataset of the same classes.
#   bash scripts/tip_adapter/eval.sh RUN DATASET [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" --trainer TipAdapter "$@"

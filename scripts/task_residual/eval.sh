#!/usr/bin/env bash
# Test a finished run of TaskResidual on another dataset of the same classes.
#   bash scripts/task_residual/eval.sh RUN DATASET [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" --trainer TaskResidual "$@"

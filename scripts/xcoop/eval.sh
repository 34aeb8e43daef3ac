#!/usr/bin/env bash
# Test a finished run of XCoOp on another dataset of the same classes.
#   bash scripts/xcoop/eval.sh RUN DATASET [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" --trainer XCoOp "$@"

#!/usr/bin/env bash
# Test a finished run of LinearProbe on another dataset of the same classes.
#   bash scripts/linear_probe/eval.sh RUN DATASET [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" --trainer LinearProbe "$@"

#!/usr/bin/env bash
# Test a finished run of LPPlusPlus on another dataset of the same classes.
#   bash scripts/lp_plus_plus/eval.sh RUN DATASET [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" --trainer LPPlusPlus "$@"

#!/usr/bin/env bash
# Test a finished run of TipAdapterF on another dataset of the same classes.
#   bash scripts/tip_adapter_f/eval.sh RUN DATASET [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" --trainer TipAdapterF "$@"

#!/usr/bin/env bash
# Test a finished run of CLIPSVD on another dataset of the same classes.
#   bash scripts/clip_svd/eval.sh RUN DATASET [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" --trainer CLIPSVD "$@"

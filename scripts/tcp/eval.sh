#!/usr/bin/env bash
# Test a finished run of TCP on another dataset of the same classes.
#   bash scripts/tcp/eval.sh RUN DATASET [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" --trainer TCP "$@"

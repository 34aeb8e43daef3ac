#!/usr/bin/env bash
# Test a finished run of GDA on another dataset of the same classes.
#   bash scripts/gda/eval.sh RUN DATASET [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" --trainer GDA "$@"

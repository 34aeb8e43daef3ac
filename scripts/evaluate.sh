#!/usr/bin/env bash
# Test a finished run on another dataset of the same classes; METHOD/eval.sh name the method.
#   bash scripts/evaluate.sh RUN DATASET [KEY VALUE ...]
# DATA is the folder that holds the datasets (default: data). The result is below output/DATASET.
set -euo pipefail

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
prepare_environment ""

exec "$PYTHON" -m scripts.evaluate --root "$DATA" "$@"

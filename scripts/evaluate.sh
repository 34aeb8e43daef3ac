#!/usr/bin/env bash
# Test a finished run on another dataset of the same classes; METHOD/eval.sh name the method.
#   bash scripts/evaluate.sh RUN DATASET [--classes "TRAINED NAME=ITS NAME" ...] [KEY VALUE ...]
# RUN is a run's folder or a short name, as in ViP/tiny. The result is below output/DATASET.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" evaluate "$@"

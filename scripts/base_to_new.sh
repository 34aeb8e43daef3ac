#!/usr/bin/env bash
# Train on the first half of the classes, test on the other half, seeds 1 2 3; then the table.
#   bash scripts/base_to_new.sh METHOD DATASET BACKBONE [KEY VALUE ...]
#   bash scripts/base_to_new.sh DATASET BACKBONE --methods ViP CoOp ZeroshotCLIP DATASET.NUM_SHOTS 16
#   bash scripts/base_to_new.sh DATASET BACKBONE --methods all
# --methods takes names and the sets of compare.sh. Methods with nothing for new classes are left out.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" base_to_new "$@"

#!/usr/bin/env bash
# All methods with seeds 1 2 3 on a dataset, then the paper's tables and what each method costs.
#   bash scripts/compare.sh derm7pt                              the paper's three backbones
#   bash scripts/compare.sh synthderm tiny
#   bash scripts/compare.sh derm7pt vit_b16 -- DATASET.NUM_SHOTS 16
#   bash scripts/compare.sh derm7pt vit_b16 --methods CoOp ViP --seeds 1 -- PREC fp32
# DATA is the folder that holds the datasets (default: data), SEEDS the seeds (default: 1 2 3).
# A failed run is named at the end and leaves the others alone; given again, the command goes on.
set -euo pipefail

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
prepare_environment ""

exec "$PYTHON" -m scripts.compare --root "$DATA" "$@"

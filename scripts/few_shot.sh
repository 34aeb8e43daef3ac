#!/usr/bin/env bash
# All methods with 1, 2, 4, 8 and 16 training images a class; then the curve.
#   bash scripts/few_shot.sh derm7pt vit_b16
#   bash scripts/few_shot.sh derm7pt vit_b16 --methods CoOp ViP OPTIM.MAX_EPOCH 20
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" few_shot "$@"

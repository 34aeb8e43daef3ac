#!/usr/bin/env bash
# Methods with 1, 2, 4, 8 and 16 training images a class; then a table and the curves in one figure.
#   bash scripts/few_shot.sh derm7pt vit_b16
#   bash scripts/few_shot.sh derm7pt vit_b16 --methods all
#   bash scripts/few_shot.sh derm7pt vit_b16 --methods CoOp ViP OPTIM.MAX_EPOCH 20
#   bash scripts/few_shot.sh derm7pt vit_b16 --shots 4 16
# --methods takes names and the sets of compare.sh: paper, strong, all.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" few_shot "$@"

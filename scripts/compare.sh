#!/usr/bin/env bash
# Methods with seeds 1 2 3 on a dataset, then the paper's tables and what each method costs.
#   bash scripts/compare.sh derm7pt                              the paper's three backbones
#   bash scripts/compare.sh synthderm tiny
#   bash scripts/compare.sh synthderm tiny --methods all         every method there is
#   bash scripts/compare.sh derm7pt vit_b16 --methods paper BiomedCoOp XCoOp
#   bash scripts/compare.sh derm7pt vit_b16 DATASET.NUM_SHOTS 16
#   bash scripts/compare.sh derm7pt vit_b16 PROTOCOL own         by the schedules of their own papers
#   bash scripts/compare.sh derm7pt vit_b16 --methods CoOp ViP --seeds 1 -- PREC fp32
# --methods takes names and sets: paper, strong, all. Without it: paper, and of strong the methods that
# take seconds. A failed run is named at the end and leaves the others alone; the same command resumes it.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" compare "$@"

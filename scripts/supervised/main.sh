#!/usr/bin/env bash
# The image encoder trained as a classifier, from random weights, seeds 1 2 3, then the table.
#   bash scripts/supervised/main.sh derm7pt vit_b16 [KEY VALUE ...]
#   bash scripts/supervised/main.sh derm7pt vit_b16 TRAINER.SUPERVISED.START clip    from CLIP's
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" Supervised "$@"

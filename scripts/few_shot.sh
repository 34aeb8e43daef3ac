#!/usr/bin/env bash
# All methods with 1, 2, 4, 8 and 16 training pictures a class; then the curve.
#   bash scripts/few_shot.sh derm7pt vit_b16
#   bash scripts/few_shot.sh derm7pt vit_b16 --methods CoOp ViP -- PREC fp32
set -euo pipefail

DATASET=${1:?usage: few_shot.sh DATASET [BACKBONE ...] [--methods TRAINER ...] [-- KEY VALUE ...]}
# The number of shots is one more option.
[[ " $* " == *" -- "* ]] || set -- "$@" --
HERE=$(dirname "${BASH_SOURCE[0]}")
for SHOTS in 1 2 4 8 16; do
    # Its failed runs are named above; they are no reason to leave out other numbers of shots.
    bash "$HERE/compare.sh" "$@" DATASET.NUM_SHOTS "$SHOTS" || [[ $? == 1 ]]
done
# shellcheck source=scripts/setup.sh
source "$HERE/setup.sh"
prepare_environment ""
exec "$PYTHON" parse_results.py "output/$(basename "$DATASET" .yaml)" --plot shots

#!/usr/bin/env bash
# Train a method with seeds 1 2 3, then print the table of what is there.
#   bash scripts/run_seeds.sh TRAINER DATASET BACKBONE [KEY VALUE ...]
# DATA is the folder that holds the datasets (default: data), SEEDS the seeds (default: 1 2 3).
# A complete run is left as it is and a cut one goes on, so the command can be repeated.
set -euo pipefail

TRAINER=${1:?usage: run_seeds.sh TRAINER DATASET BACKBONE [KEY VALUE ...]}
DATASET=${2:?usage: scripts/METHOD/main.sh DATASET BACKBONE [KEY VALUE ...]}
BACKBONE=${3:?usage: scripts/METHOD/main.sh DATASET BACKBONE [KEY VALUE ...]}

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
prepare_environment ""

for SEED in ${SEEDS:-1 2 3}; do
    "$PYTHON" train.py --root "$DATA" --trainer "$TRAINER" --dataset "$DATASET" \
        --backbone "$BACKBONE" --seed "$SEED" "${@:4}"
done
"$PYTHON" parse_results.py "output/$(basename "$DATASET" .yaml)"

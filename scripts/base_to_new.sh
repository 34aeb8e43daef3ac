#!/usr/bin/env bash
# Train on the first half of the classes, test on the other half, seeds 1 2 3; then the table.
#   bash scripts/base_to_new.sh TRAINER DATASET BACKBONE [KEY VALUE ...]
# For methods whose learned parameters do not belong to classes: CoOp, CoCoOp, KgCoOp, MaPLe,
# BayesianPrompt, and ViP, whose new classes start at g = 0: the mean of their symptoms' features.
set -euo pipefail

TRAINER=${1:?usage: base_to_new.sh TRAINER DATASET BACKBONE [KEY VALUE ...]}
DATASET=${2:?usage: base_to_new.sh TRAINER DATASET BACKBONE [KEY VALUE ...]}
BACKBONE=${3:?usage: base_to_new.sh TRAINER DATASET BACKBONE [KEY VALUE ...]}

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
prepare_environment ""

NAME=$(basename "$DATASET" .yaml)
# Runs with other options have another folder.
VARIANT=$(printf '_%s' base "${@:4}" | tr -c 'A-Za-z0-9._=-' '-')
VARIANT=${VARIANT#_}

for SEED in ${SEEDS:-1 2 3}; do
    RUN=output/$NAME/$TRAINER/$(basename "$BACKBONE" .yaml)/$VARIANT/seed$SEED
    "$PYTHON" train.py --root "$DATA" --trainer "$TRAINER" --dataset "$DATASET" \
        --backbone "$BACKBONE" --seed "$SEED" --output-dir "$RUN" \
        "${@:4}" DATASET.SUBSAMPLE_CLASSES base
    "$PYTHON" -m scripts.evaluate "$RUN" "$DATASET" --trainer "$TRAINER" --root "$DATA" \
        DATASET.SUBSAMPLE_CLASSES new
done
"$PYTHON" parse_results.py "output/$NAME"

#!/usr/bin/env bash
# The paper's Table 2: context on or off, symptoms merged by prompt, mean or maximum; then the table.
#   bash scripts/vip/ablation.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
DATASET=${1:?usage: ablation.sh DATASET BACKBONE [KEY VALUE ...]}
BACKBONE=${2:?usage: ablation.sh DATASET BACKBONE [KEY VALUE ...]}
exec bash "$(dirname "${BASH_SOURCE[0]}")/../compare.sh" --experiment ablation \
    "$DATASET" "$BACKBONE" -- "${@:3}"

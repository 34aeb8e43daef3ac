#!/usr/bin/env bash
# MaPLe (Khattak et al., CVPR 2023), seeds 1 2 3, then the table.
#   bash scripts/maple/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" MaPLe "$@"

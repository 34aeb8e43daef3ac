#!/usr/bin/env bash
# Task residual (Yu et al., CVPR 2023), seeds 1 2 3, then the table.
#   bash scripts/task_residual/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" TaskResidual "$@"

#!/usr/bin/env bash
# CoCoOp (Zhou et al., CVPR 2022), seeds 1 2 3, then the table.
#   bash scripts/cocoop/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" CoCoOp "$@"

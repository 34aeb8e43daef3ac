#!/usr/bin/env bash
# CoOp (Zhou et al., IJCV 2022), seeds 1 2 3, then the table.
#   bash scripts/coop/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" CoOp "$@"

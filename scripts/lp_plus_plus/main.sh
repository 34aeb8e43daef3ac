#!/usr/bin/env bash
# A linear probe with text features blended in, seeds 1 2 3, then the table.
#   bash scripts/lp_plus_plus/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" LPPlusPlus "$@"

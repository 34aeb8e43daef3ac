#!/usr/bin/env bash
# XCoOp (Bie et al., MICCAI 2024), seeds 1 2 3, then the table.
#   bash scripts/xcoop/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" XCoOp "$@"

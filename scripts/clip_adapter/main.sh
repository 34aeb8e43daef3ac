#!/usr/bin/env bash
# CLIP-Adapter (Gao et al., IJCV 2024), seeds 1 2 3, then the table.
#   bash scripts/clip_adapter/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" CLIPAdapter "$@"

#!/usr/bin/env bash
# CLIPSVD (Koleilat et al. 2025), seeds 1 2 3, then the table.
#   bash scripts/clip_svd/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" CLIPSVD "$@"

#!/usr/bin/env bash
# Tip-Adapter-F (Zhang et al., ECCV 2022), seeds 1 2 3, then the table.
#   bash scripts/tip_adapter_f/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" TipAdapterF "$@"

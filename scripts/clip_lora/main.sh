#!/usr/bin/env bash
# CLIPLoRA (Zanella and Ben Ayed, CVPRW 2024), seeds 1 2 3, then the table.
#   bash scripts/clip_lora/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" CLIPLoRA "$@"

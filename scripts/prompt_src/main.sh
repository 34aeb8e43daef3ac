#!/usr/bin/env bash
# PromptSRC (Khattak et al., ICCV 2023), seeds 1 2 3, then the table.
#   bash scripts/prompt_src/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" PromptSRC "$@"

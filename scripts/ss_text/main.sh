#!/usr/bin/env bash
# Class weights in closed form from text and image features, seeds 1 2 3, then the table.
#   bash scripts/ss_text/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" SSText "$@"

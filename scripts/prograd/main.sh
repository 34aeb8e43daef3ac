#!/usr/bin/env bash
# ProGrad (Zhu et al., ICCV 2023), seeds 1 2 3, then the table.
#   bash scripts/prograd/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" ProGrad "$@"

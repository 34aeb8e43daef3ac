#!/usr/bin/env bash
# A linear probe held near the text features, seeds 1 2 3, then the table.
#   bash scripts/clap/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" CLAP "$@"

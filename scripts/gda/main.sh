#!/usr/bin/env bash
# A Gaussian classifier added to zero-shot CLIP, seeds 1 2 3, then the table.
#   bash scripts/gda/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" GDA "$@"

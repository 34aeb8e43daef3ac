#!/usr/bin/env bash
# ConceptBottleneck (LaBo's form: Yang et al., CVPR 2023), seeds 1 2 3, then the table.
#   bash scripts/concept_bottleneck/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../run_seeds.sh" ConceptBottleneck "$@"

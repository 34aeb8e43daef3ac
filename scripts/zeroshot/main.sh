#!/usr/bin/env bash
# The paper's Fig. 3 I: zero-shot CLIP by class names and by symptoms, then the table.
#   bash scripts/zeroshot/main.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" compare --experiment zeroshot "$@"

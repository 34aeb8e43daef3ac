#!/usr/bin/env bash
# The paper's Table 2: context on or off, symptoms merged by prompt, mean or maximum; then the table.
#   bash scripts/vip/ablation.sh derm7pt vit_b16 [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" compare --experiment ablation "$@"

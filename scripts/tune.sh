#!/usr/bin/env bash
# Choose a method's options on the validation images (a small grid, the first seed), then train the
# choice with all seeds; then the table.
#   bash scripts/tune.sh KgCoOp derm7pt vit_b16 [--grid W=1,2,4] [--max-runs 64] [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" tune "$@"

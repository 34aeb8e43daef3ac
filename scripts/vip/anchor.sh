#!/usr/bin/env bash
# ViP plain and anchored (TRAINER.VIP.ANCHOR), on right symptoms and on those of the knowledge
# experiment; then the table with what the symptoms still mean after training.
#   bash scripts/vip/anchor.sh synthderm tiny [--weights 1 2 4] [--kinds right swapped] [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" anchor "$@"

#!/usr/bin/env bash
# The paper's Fig. 5: ViP with incorrect, useless and out-of-domain symptoms, and two controls of this
# project's own (classes swapped, random words); then the table.
#   bash scripts/vip/knowledge.sh derm7pt vit_b16 [KEY VALUE ...]
# They are read from the files beside the dataset's own: symptoms/derm7pt_incorrect.json, ...
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../launch.sh" compare --experiment knowledge "$@"

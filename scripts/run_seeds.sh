#!/usr/bin/env bash
# Train a method with seeds 1 2 3, then print the table of what is there.
#   bash scripts/run_seeds.sh METHOD DATASET BACKBONE [KEY VALUE ...]
# A complete run is left as it is and an interrupted one is resumed: the command can be repeated.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" run_seeds "$@"

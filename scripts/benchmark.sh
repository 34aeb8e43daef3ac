#!/usr/bin/env bash
# A benchmark of several datasets: base-to-new and few-shot on every set that is at hand; then the means.
#   DATA=~/data bash scripts/benchmark.sh biomedcoop biomedclip
#   bash scripts/benchmark.sh biomedcoop biomedclip --methods paper BiomedCoOp --shots 1 16
#   bash scripts/benchmark.sh biomedcoop tiny --methods ViP --only few-shot --seeds 1 -- OPTIM.MAX_EPOCH 1
# It says which sets are missing and how to get them. The same command goes on after an interruption.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" benchmark "$@"

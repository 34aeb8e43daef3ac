#!/usr/bin/env bash
# Test a finished run of PromptSRC on another dataset of the same classes.
#   bash scripts/prompt_src/eval.sh RUN DATASET [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" --trainer PromptSRC "$@"

#!/usr/bin/env bash
# Test a finished run of ConceptBottleneck on another dataset of the same classes and symptoms.
#   bash scripts/concept_bottleneck/eval.sh RUN DATASET [KEY VALUE ...]
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" --trainer ConceptBottleneck "$@"

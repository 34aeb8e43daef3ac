#!/usr/bin/env bash
# VisionLLM: ask a vision-language model for the class of each test image, then the table.
#   bash scripts/vision_llm/main.sh derm7pt --modality "dermoscopic images" --model gpt-4o --dry-run
#   bash scripts/vision_llm/main.sh derm7pt --modality "dermoscopic images" --model gpt-4o --upload-images
# Nothing is sent without --upload-images. docs/vision_llm.md has the other options.
set -euo pipefail

DATASET=${1:?usage: main.sh DATASET [--model NAME] [--upload-images] [OPTION ...]}
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
prepare_environment ""

"$PYTHON" -m vision_llm --dataset "$DATASET" --root "$DATA" "${@:2}"
for word in "$@"; do
    [[ $word == --dry-run || $word == --output-dir* || $word == --help ]] && exit
done
exec "$PYTHON" parse_results.py output --dataset "$(basename "$DATASET" .yaml)"

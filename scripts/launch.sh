#!/usr/bin/env bash
# Run a module of scripts/ in the project's environment; the other scripts call this.
#   bash scripts/launch.sh MODULE [ARGUMENT ...]
# DATA is the folder that holds the datasets (default: data), SEEDS the seeds (default: 1 2 3).
set -euo pipefail

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
prepare_environment ""

exec "$PYTHON" -m "scripts.$1" --root "$DATA" "${@:2}"

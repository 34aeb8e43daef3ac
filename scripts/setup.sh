# Sourced by the other scripts, or run to make .venv alone. It changes to the top of the checkout and
# sets $PYTHON, a Python that has all the project needs, and $DATA, the folder that holds the
# datasets (default: data).
#
# PYTHON=/path/to/python is used as it is (your own environment, with Dassl or CUDA). Otherwise .venv
# in the checkout is made, or updated if setup.py or the tested versions changed; NAME=python3.12
# chooses the Python that it is made from.

DATA=${DATA:-data}
if [[ -d $DATA && $DATA != /* ]]; then
    DATA=$PWD/$DATA # relative to the folder that the user is in
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

prepare_environment() {
    local extras=$1 python wanted
    if [[ -n ${PYTHON:-} ]]; then
        return
    fi
    PYTHON=$PWD/.venv/bin/python
    wanted="$extras $(cat setup.py constraints.txt | cksum)"
    # Two scripts that start together must not both install into the environment.
    exec 9>.venv.lock
    command -v flock >/dev/null && flock 9
    if [[ ! -x $PYTHON || ! -e .venv/ready$extras || $(<".venv/ready$extras") != "$wanted" ]]; then
        python=$(find_python) || exit 2
        echo "Setting up .venv (once; some minutes and, with CUDA's libraries, some GB)" >&2
        [[ -x $PYTHON ]] || "$python" -m venv .venv
        "$PYTHON" -m pip install --quiet --disable-pip-version-check -c constraints.txt \
            ".$extras" >&2 || { echo "error: setting up .venv failed, see above" >&2; exit 2; }
        echo "$wanted" >".venv/ready$extras"
    fi
    exec 9>&-
}

find_python() {
    local name
    for name in ${NAME:-python3 python3.14 python3.13 python3.12 python3.11 python3.10 python}; do
        if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' \
            2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "error: no Python 3.10 to 3.14 found; name one in NAME, or an environment in PYTHON" >&2
    return 2
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then # run, not sourced: make the environment, no more
    set -euo pipefail
    prepare_environment ""
fi

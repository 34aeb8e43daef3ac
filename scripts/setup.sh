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
        echo "Setting up .venv (once; it downloads up to 3 GB, see README.md)" >&2
        [[ -x $PYTHON ]] || "$python" -m venv .venv
        install_project "$extras" || { echo "error: setting up .venv failed, see above" >&2; exit 2; }
        echo "$wanted" >".venv/ready$extras"
    fi
    exec 9>&-
}

# uv is faster than pip and, without a GPU, takes PyTorch's CPU build: some 200 MB in place of several
# GB. PyTorch's own index may be out of reach where PyPI is not; pip then installs what PyPI has.
install_project() {
    local options=(--quiet -c constraints.txt ".$1")
    if command -v uv >/dev/null; then
        uv pip install --python "$PYTHON" --torch-backend auto "${options[@]}" >&2 && return
        echo "uv did not install the project; trying pip" >&2
    fi
    "$PYTHON" -m pip install --disable-pip-version-check "${options[@]}" >&2
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

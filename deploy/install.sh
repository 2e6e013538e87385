#!/bin/sh
# Builds the engine from this source and installs it into a new virtual environment; every version and hash is the lock's.
#
#   deploy/install.sh FOLDER [EXTRAS]
#
# EXTRAS are those of pyproject.toml, comma-separated: tracing, parquet. UV_PYTHON names another Python than python3.
# Needs uv and, for packages that it has not fetched before, a package index.
set -eu

folder=$1
extras=${2:-}
if [ -e "$folder" ]; then
    echo "$folder is there already: a release gets a folder of its own" >&2
    exit 1
fi
cd "$(dirname "$0")/.."
# Whoever runs it must be able to read it, and cannot write compiled files later.
umask 022
export UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
# The lock holds what tests need, too: as constraints it gives versions and hashes of what the wheel asks for, no more.
uv build --quiet --wheel --build-constraints requirements.lock --require-hashes --out-dir "$built"
wheel=$(ls "$built"/*.whl)
echo "fleetwatt[$extras] @ file://$wheel --hash=sha256:$(sha256sum "$wheel" | cut -d' ' -f1)" > "$built/wanted.txt"
# A half-made environment would be taken for a whole one.
trap 'rm -rf "$built" "$folder"' EXIT
uv venv --quiet --python "${UV_PYTHON:-python3}" "$folder"
uv pip install --quiet --python "$folder" --require-hashes --constraints requirements.lock --requirements "$built/wanted.txt"
trap 'rm -rf "$built"' EXIT

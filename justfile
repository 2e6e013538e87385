# `just` alone lists the recipes.

set shell := ["bash", "-euo", "pipefail", "-c"]

export UV_PYTHON_DOWNLOADS := "never"

# `uv` may not be on PATH when pip put it into a user's home: fall back on the module.
uv := `command -v uv >/dev/null 2>&1 && echo uv || echo "python3 -m uv"`
bin := justfile_directory() / ".venv/bin"

# List the recipes
default:
    @just --list --unsorted

# Virtual environment, pinned dependencies, embedded servers; takes seconds when there is nothing to do
setup: _venv
    @{{ bin }}/fleetwatt install-servers

# Everything in one terminal: servers, 200 vehicles, a day of history, live view; `just demo 30` ends after 30 s
demo *seconds: setup
    @{{ bin }}/fleetwatt demo {{ seconds }}

# Servers and service, until Ctrl-C
up *options: setup
    @{{ bin }}/fleetwatt up {{ options }}

# All the tests, on every TimescaleDB edition that is there
test *options: setup
    @{{ bin }}/pytest -n 2 {{ options }}

# Time analytics over a history of minutes: 10,000 vehicles and two days unless told otherwise
bench-history *options: setup
    @{{ bin }}/python -m bench.history {{ options }}

# Lint, format, types, import rules, SQL lint
check: _venv
    {{ bin }}/ruff check .
    {{ bin }}/ruff format --check .
    {{ bin }}/mypy
    {{ bin }}/lint-imports --no-logo
    {{ bin }}/sqlfluff lint sql/migrations sql/repeatable sql/queries
    {{ bin }}/squawk sql/migrations/*.sql sql/migrations/*/*.sql

# Format Python and SQL in place
format: _venv
    {{ bin }}/ruff check --fix .
    {{ bin }}/ruff format .
    {{ bin }}/sqlfluff fix sql/migrations sql/repeatable sql/queries

# Pin the dependencies anew (hashes, no index address)
lock:
    {{ uv }} pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --python-version 3.11 --extra dev --upgrade \
        pyproject.toml --output-file requirements.lock

# Write sql/schema.sql anew from what the migrations build
schema: setup
    {{ bin }}/python -m tests.support.schema_dump > sql/schema.sql

# Remove the virtual environment and caches of the tools (never data)
[confirm("Remove .venv and tool caches?")]
clean:
    rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The environment is rebuilt only when the lock, the project file or the interpreter changed
_venv:
    #!/usr/bin/env bash
    set -euo pipefail
    python=$(command -v python3)
    want=$(sha256sum < requirements.lock | cut -d' ' -f1)-$("$python" -V 2>&1)
    if [ "$(cat .venv/fleetwatt.stamp 2>/dev/null || true)" = "$want" ]; then exit 0; fi
    echo "Creating .venv with the pinned dependencies ..."
    {{ uv }} venv --quiet --clear --python "$python" .venv
    {{ uv }} pip install --quiet --python .venv --require-hashes -r requirements.lock
    {{ uv }} pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
    echo "$want" > .venv/fleetwatt.stamp

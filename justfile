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

# Faults against a full engine of real processes, every reading counted; some 20 minutes unless told otherwise
chaos *options: setup
    @{{ bin }}/python -m tests.chaos {{ options }}

# Twice the sustainable rate for 3 minutes: memory must stay flat
soak *options: setup
    @{{ bin }}/python -m tests.chaos.soak {{ options }}

# Try inputs on whatever reads bytes: a million unless told --inputs or --seconds; --seed and --only repeat one
fuzz *options: _venv
    @{{ bin }}/python -m tests.fuzz {{ options }}

# Requests made from the OpenAPI document, 200 random ones an operation unless told otherwise; some 20 minutes
fuzz-api examples="200": setup
    FLEETWATT_TEST_API_EXAMPLES={{ examples }} {{ bin }}/pytest -s tests/service/test_schemathesis.py

# Time analytics over a history of minutes: 10,000 vehicles and two days unless told otherwise
bench-history *options: setup
    @{{ bin }}/python -m bench.history {{ options }}

# Ingest and answers beside psql's \copy and one transaction a reading, in less than 5 minutes; --list names all
bench *options: setup
    @{{ bin }}/python -m bench {{ options }}

# All of that with all sizes and curves, 100 million readings and storage too; about an hour, 25 GB of disk
bench-full *options: setup
    @{{ bin }}/python -m bench --full {{ options }}

# What the broker keeps while no worker runs, and what that costs: 20,000 readings unless told otherwise
bench-broker-backlog *options: setup
    @{{ bin }}/python -m bench.broker_backlog {{ options }}

# Take the README's pictures of the dashboard anew, with a simulated fleet; two minutes
pictures: setup
    @{{ bin }}/python -m tests.browser.pictures

# Lint, format, types, import rules, SQL lint, security: of the code, and of what it depends on
check: _venv && _audit
    {{ bin }}/ruff check .
    {{ bin }}/ruff format --check .
    {{ bin }}/mypy
    {{ bin }}/lint-imports --no-logo
    {{ bin }}/sqlfluff lint sql/migrations sql/repeatable sql/queries sql/to_community
    {{ bin }}/squawk sql/migrations/*.sql sql/migrations/*/*.sql
    {{ bin }}/bandit --quiet --configfile pyproject.toml --recursive service alembic bench
    {{ bin }}/bandit --quiet --tests B311 --recursive service/access service/web

# Known vulnerabilities of the pinned dependencies; skipped where no service can be asked
_audit:
    @{{ bin }}/python -m tests.support.audit

# Format Python and SQL in place
format: _venv
    {{ bin }}/ruff check --fix .
    {{ bin }}/ruff format .
    {{ bin }}/sqlfluff fix sql/migrations sql/repeatable sql/queries sql/to_community

# Pin the dependencies anew (hashes, no index address)
lock:
    {{ uv }} pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --python-version 3.11 --extra dev --extra parquet --extra tracing --upgrade \
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

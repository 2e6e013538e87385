"""The OpenAPI document against the service: schemathesis makes requests of it and checks the answers.

Every operation gets its examples, values at and past the edges of its schemas, and random ones, from one
seed. An answer must not be a 5xx; its status, content type and body must be in the document; what breaks the
document must be refused, and other methods than those it lists be answered with 405 and the right Allow.

`just fuzz-api` runs many more cases: FLEETWATT_TEST_API_EXAMPLES for each operation.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from anyio import to_thread

from service.settings import Settings
from tests.support.serving import Served, make_key, served

pytestmark = pytest.mark.anyio

EXAMPLES: Final = int(os.environ.get("FLEETWATT_TEST_API_EXAMPLES", "4"))
_SHORT: Final = EXAMPLES <= 4
_TIMEOUT_S: Final = 240 if _SHORT else 7200
_ALL_PHASES: Final = "examples,coverage,fuzzing"
_PROJECT: Final = Path(__file__).parents[2]
_HOOKS: Final = "tests.support.schemathesis_hooks"
_OPTIONS: Final = (
    *("--max-examples", str(EXAMPLES)),
    *("--seed", "20260131"),
    *("--checks", "all"),
    # A good request may still be refused for what is stored (a conflict, an unknown id), for the clock, or
    # for two fields that do not go together, which no schema can say.
    *("--exclude-checks", "positive_data_acceptance"),
    # It does not end. tests/service/test_api_statuses.py provokes its errors.
    *("--exclude-path", "/v1/stream"),
    *("--generation-database", "none"),
    *("--suppress-health-check", "all"),
    "--continue-on-failure",
    "--no-color",
)


@pytest.fixture(params=["apache"])
def edition(request: pytest.FixtureRequest) -> str:
    """Run on one edition: what is answered does not depend on it."""
    name: str = request.param
    return name


async def fuzzed(running: Served, folder: Path, phases: str, *options: str) -> None:
    """Run schemathesis against a service; fail with its report when it finds something."""
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "run"),
        f"http://127.0.0.1:{running.port}/api/openapi.json",
        *("--phases", phases),
        *(*_OPTIONS, *options),
    ]
    done = await to_thread.run_sync(
        lambda: subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": str(_PROJECT), "SCHEMATHESIS_HOOKS": _HOOKS},
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=_TIMEOUT_S,
            check=False,
        )
    )
    report = done.stdout + done.stderr
    assert done.returncode == 0, report[-20_000:]
    assert "request_failed" not in running.log
    [operations] = re.findall(r"Tested: (\d+)", report)
    [cases] = re.findall(r"(\d[\d,]*) generated", report)
    sys.stdout.write(f"\nschemathesis: {cases} cases over {operations} operations, nothing found\n")


@pytest.mark.timeout(_TIMEOUT_S + 60)
async def test_open_service(settings: Settings, tmp_path: Path) -> None:
    """A service without keys answers as its document says."""
    async with served(settings, tmp_path) as running:
        await fuzzed(running, tmp_path, _ALL_PHASES)


@pytest.mark.timeout(_TIMEOUT_S + 60)
async def test_closed_service(settings: Settings, tmp_path: Path) -> None:
    """So does one with keys: to a key that may do everything, to none and to a wrong one."""
    key = await make_key(settings)
    async with served(settings, tmp_path) as running:
        refused = await running.client.get("/v1/sessions")
        assert refused.status_code == 401
        phases = "examples,fuzzing" if _SHORT else _ALL_PHASES
        await fuzzed(running, tmp_path, phases, "--header", f"Authorization: Bearer {key}")

"""`fleetwatt import` of what it refuses: kept once however often it is imported, told, an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from service.sql import query
from tests.support.letters import marks
from tests.support.strategies import Api, Owner, altered, meter, rows

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

Run = Callable[..., subprocess.CompletedProcess[str]]

HEAD = "meterId,timestamp,kwhConsumedAc,voltage\n"
GOOD = "m-1,2026-01-31T12:00:00Z,0.5,230\nm-1,2026-01-31T12:01:00Z,0.5,230\n"
BAD = "m-1,2026-01-31T12:02:00Z,?,230\nm-1,2026-01-31T12:03:00Z,0.5,ten\n"
CONFLICT = "m-1,2026-01-31T12:00:00Z,0.75,230\n"


@pytest.fixture
def fleetwatt(settings: Settings) -> Run:
    """Run `fleetwatt` on the test's database."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "service", *arguments],
            env={**os.environ, "FLEETWATT_DATABASE_URL": settings.database_url},
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )

    return run


@pytest.fixture
def imported(fleetwatt: Run, tmp_path: Path) -> Callable[..., str]:
    """Import lines as a file of some name, of which some are refused; give the line of counts."""

    def run(text: str, name: str = "meter.csv") -> str:
        file = tmp_path / name
        file.write_text(text)
        result = fleetwatt("import", str(file))
        assert result.returncode == 1, result.stdout + result.stderr
        return result.stdout.splitlines()[0]

    return run


async def letters(owner: Owner) -> list[tuple[Any, ...]]:
    """Give code and bytes of all letters, in their order."""
    found = await rows(owner, "select code, raw from dead_letter order by dead_letter_id")
    return [(row["code"], row["raw"].decode()) for row in found]


async def test_importing_again_keeps_nothing_twice(imported: Callable[..., str], owner: Owner) -> None:
    """The same lines of the same file are known, also once the file has grown; what is new is kept."""
    text = HEAD + GOOD + BAD
    assert imported(text) == "read 4 lines: accepted 2, duplicates 0, rejected 2 (conflicts 0)"
    first = await letters(owner)
    assert first == list(zip(["missing", "wrong_type"], BAD.splitlines(), strict=True))
    again = imported(text + CONFLICT)
    assert again == (
        "read 5 lines: accepted 0, duplicates 2, rejected 3 (conflicts 1), 2 of them dead letters already"
    )
    assert await letters(owner) == [*first, ("conflict", CONFLICT.strip())]
    assert imported(text + CONFLICT).endswith("rejected 3 (conflicts 1), 3 of them dead letters already")
    assert len(await letters(owner)) == 3


async def test_what_differs_is_kept(imported: Callable[..., str], owner: Owner) -> None:
    """Another file, other bytes, another reason, and the same line twice in a file that is new."""
    bad = BAD.splitlines(keepends=True)[0]
    imported(HEAD + bad)
    imported(HEAD + bad, "other.csv")
    imported(HEAD + bad, "meter.csv:1.csv")
    assert len(await letters(owner)) == 3
    imported(HEAD + bad.replace("12:02", "12:04"))
    assert len(await letters(owner)) == 4
    # With the columns in another order the same bytes are refused for another reason.
    odd = "m-1,2026-01-31T12:05:00Z,?,ten\n"
    imported(HEAD + odd)
    imported("meterId,timestamp,voltage,kwhConsumedAc\n" + odd)
    assert [code for code, _ in (await letters(owner))[4:]] == ["missing", "wrong_type"]
    imported(HEAD + bad + bad, "twice.csv")
    assert len(await letters(owner)) == 8


async def test_what_a_replay_stored_is_no_longer_known(
    imported: Callable[..., str], owner: Owner, fleetwatt: Run
) -> None:
    """A dismissed line is not kept again, a resolved one is: what is stored would not be refused."""
    text = HEAD + BAD
    imported(text)
    assert fleetwatt("dead-letters", "dismiss", "--origin", "import:meter.csv:").returncode == 0
    assert "2 of them dead letters already" in imported(text)
    assert set((await marks(owner)).values()) == {(True, 0, "dismissed")}
    await owner.execute("update dead_letter set replay_error = null where code = 'missing'")
    assert "1 of them dead letters already" in imported(text)
    assert [code for code, _ in await letters(owner)] == ["missing", "wrong_type", "missing"]


async def test_many_of_a_block(imported: Callable[..., str], owner: Owner) -> None:
    """What shares a letter is known with it, line by line."""
    text = HEAD + "".join(f"m-1,2026-01-31T12:00:00Z,?,{n}\n" for n in range(150))
    imported(text)
    assert len(await letters(owner)) == 101
    assert imported(text).endswith("rejected 150 (conflicts 0), 150 of them dead letters already")
    assert len(await letters(owner)) == 101


async def test_ndjson(fleetwatt: Run, owner: Owner, tmp_path: Path) -> None:
    """Lines of NDJSON as well."""
    file = tmp_path / "a.ndjson"
    file.write_text('{"meterId":"m-1"}\nnonsense\n')
    for known in ("", ", 2 of them dead letters already"):
        result = fleetwatt("import", str(file))
        assert result.returncode == 1
        assert result.stdout.splitlines()[0].endswith(f"rejected 2 (conflicts 0){known}")
    assert [code for code, _ in await letters(owner)] == ["missing", "malformed_json"]


async def test_only_files_are_looked_up(api: Api, owner: Owner) -> None:
    """What is sent twice over HTTP is kept twice: two devices may have sent the same bytes."""
    for _ in range(2):
        assert (await api.post("/v1/telemetry", json=altered(meter(), voltage="230"))).status_code == 400
    assert len(await letters(owner)) == 2


async def test_by_an_index_whatever_waits(owner: Owner) -> None:
    """A refused line costs a look-up by its bytes; what else was refused makes it no slower."""
    await owner.execute(
        "insert into dead_letter (origin, code, message, raw, raw_size) "
        "select case n % 2 when 0 then 'mqtt:t' else 'import:a.csv:1-9' end, 'missing', 'm', "
        "convert_to(n::text, 'UTF8'), 1 from generate_series(1, 20000) as n"
    )
    await owner.execute("analyze dead_letter")
    names = ("kind", "device_id", "field")
    given: dict[str, Any] = {name: [None] * 2 for name in names}
    given |= {"origin": ["import:a.csv:7-8", "mqtt:t"], "code": ["missing"] * 2, "message": ["m"] * 2}
    given |= {"raw": [b"77", b"78"], "raw_size": [1, 1]}
    statement = query("insert_dead_letters")
    cursor = await owner.execute("explain (analyze, timing off) " + statement, given)
    told = "\n".join(str(row["QUERY PLAN"]) for row in await cursor.fetchall())
    assert "Index Scan using dead_letter_imported" in told, told
    assert "Seq Scan on dead_letter" not in told, told
    assert "One-Time Filter: starts_with(d.origin" in told, told

"""`fleetwatt sessions`: import with its reports, list, start and end, as an operator calls them."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from tests.support.strategies import Api, Owner, rows

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

Run = Callable[..., subprocess.CompletedProcess[str]]

CSV = """sessionId,vehicleId,meterId,startedAt,endedAt
a,v-1,m-1,2026-01-31T12:00:00Z,2026-01-31T13:00:00Z
b,v-2,m-1,2026-01-31T12:59:59Z,2026-01-31T14:00:00Z
c,v-2,m-1,2026-01-31T13:00:00Z,2026-01-31T14:00:00Z
a,v-1,m-1,2026-01-31T12:00:00Z,2026-01-31T13:00:00Z
a,v-9,m-1,2026-01-31T12:00:00Z,2026-01-31T13:00:00Z
b,v-2,m-1,2026-01-31T12:59:59Z,2026-01-31T14:00:00Z
d,v-1,m-2,2026-01-31T12:00:00Z,
"""


@pytest.fixture
def fleetwatt(settings: Settings) -> Run:
    """Run `fleetwatt sessions` on the test's database."""

    def run(
        *arguments: str, url: str | None = None, command: str = "sessions"
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "service", command, *arguments],
            env={**os.environ, "FLEETWATT_DATABASE_URL": settings.database_url if url is None else url},
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )

    return run


def told(result: subprocess.CompletedProcess[str], returncode: int = 0) -> Any:
    """Give the JSON that a command printed."""
    assert result.returncode == returncode, result.stdout + result.stderr
    return json.loads(result.stdout)


async def test_repeats_overlaps_and_one_id_twice(fleetwatt: Run, owner: Owner, tmp_path: Path) -> None:
    """A repeat shares the fate of the row that it repeats; another session under a known id is refused."""
    file, report = tmp_path / "sessions.csv", tmp_path / "refused.csv"
    file.write_text(CSV)
    expected = [
        ("3", "session_overlap", "meterId"),
        ("6", "session_exists", "sessionId"),
        ("7", "session_overlap", "meterId"),
        ("8", "missing", "endedAt"),
    ]
    for stored, there in ((2, 1), (0, 3)):
        summary = told(fleetwatt("import", str(file), "--json", "--report", str(report)), 1)
        counts = (summary["rows"], summary["stored"], summary["alreadyThere"], summary["refused"])
        assert counts == (7, stored, there, 4)
        with report.open(newline="") as written:
            refused = list(csv.DictReader(written))
        assert [(row["line"], row["code"], row["field"]) for row in refused] == expected
        assert [row["raw"] for row in refused] == [CSV.splitlines()[int(line) - 1] for line, *_ in expected]
        assert "session a of vehicle v-1" in refused[0]["message"]
    assert [row["session_id"] for row in await rows(owner, "select * from charging_session order by 1")] == [
        "a",
        "c",
    ]
    # The same row with leave to be open is a session.
    assert told(fleetwatt("import", str(file), "--json", "--open-ends"), 1)["stored"] == 1


async def test_a_correction_outlives_the_next_import(fleetwatt: Run, api: Api, tmp_path: Path) -> None:
    """What was corrected since is not undone: the row is refused, and the session stays as it is."""
    file = tmp_path / "sessions.csv"
    file.write_text(CSV)
    fleetwatt("import", str(file))
    response = await api.patch("/v1/sessions/a", json={"vehicleId": "v-7", "meterId": "m-7"})
    assert response.status_code == 200
    summary = told(fleetwatt("import", str(file), "--json"), 1)
    # Row b has room now that the meter is free, but c starts within it.
    assert (summary["stored"], summary["alreadyThere"]) == (0, 1)
    assert (await api.get("/v1/sessions/a")).json() == response.json()


async def test_the_words_for_people(fleetwatt: Run, tmp_path: Path) -> None:
    """One line of counts, then each reason with its lines; refused rows are an exit code unless allowed."""
    file = tmp_path / "sessions.csv"
    file.write_text(CSV)
    result = fleetwatt("import", str(file))
    assert result.returncode == 1
    assert fleetwatt("import", str(file), "--no-strict").returncode == 0
    assert "read 7 rows: 2 new sessions, 1 already there, 4 refused" in result.stdout
    assert "2 x session_overlap (meterId)" in result.stdout
    assert "lines 3, 7" in result.stdout


async def test_what_stops_an_import(fleetwatt: Run, tmp_path: Path) -> None:
    """No file, no such column, the report over the file, no database: one line of words, and nothing else."""
    file = tmp_path / "sessions.csv"
    file.write_text(CSV)
    for arguments, url, words in (
        ([str(tmp_path / "none.csv")], None, "No such file"),
        ([str(file), "--start", "begin"], None, "--start begin: no such column"),
        ([str(file), "--report", str(file)], None, "--report would overwrite"),
        ([str(file)], "postgresql://127.0.0.1:1/none", "the database does not answer"),
    ):
        result = fleetwatt("import", *arguments, url=url)
        assert result.returncode == 1
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert file.read_text() == CSV
    # A dry run asks no database.
    file.write_text("".join(CSV.splitlines(keepends=True)[:2]))
    assert fleetwatt("import", str(file), "--dry-run", url="postgresql://127.0.0.1:1/none").returncode == 0


async def test_a_narrow_terminal_cuts_nothing(fleetwatt: Run, settings: Settings) -> None:
    """On a terminal of 80 columns ids and times are whole, each on one line of text, for `end` to take."""
    session, vehicle, moment = "s" * 40, "v" * 40, "2026-01-31T12:00:00Z"
    told(fleetwatt("start", vehicle, "m" * 40, "--at", moment, "--session-id", session, "--json"))
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    environment = {**os.environ, "FLEETWATT_DATABASE_URL": settings.database_url, "TERM": "xterm"}
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs
        [sys.executable, "-m", "service", "sessions", "list"], env=environment, stdout=theirs, stdin=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other side has closed it
            while piece := os.read(ours, 65_536):
                shown += piece
    os.close(ours)
    assert process.returncode == 0
    for word in (session, vehicle, "m" * 40, moment):
        assert word.encode() in shown


async def test_start_list_and_end(fleetwatt: Run, owner: Owner) -> None:
    """A session by hand: started, listed, refused where the meter is taken, ended once, and traced."""
    at = ("--at", "2026-01-31T12:00:00Z")
    first = told(fleetwatt("start", "v-1", "m-1", *at, "--session-id", "s-1", "--json"))
    assert first == {
        "sessionId": "s-1",
        "vehicleId": "v-1",
        "meterId": "m-1",
        "startedAt": "2026-01-31T12:00:00Z",
        "endedAt": None,
    }
    refused = fleetwatt("start", "v-2", "m-1", "--at", "2026-01-31T13:00:00Z")
    assert refused.returncode == 1
    assert "'s-1' of vehicle 'v-1'" in refused.stderr
    assert told(fleetwatt("list", "--open", "--json")) == {"sessions": [first]}
    assert told(fleetwatt("list", "--ended", "--json")) == {"sessions": []}
    result = fleetwatt("end", "s-1", "--at", "2026-01-31T14:00:00Z")
    assert result.returncode == 0, result.stderr
    assert "ended 2026-01-31T14:00:00Z" in result.stdout
    again = fleetwatt("end", "s-1", "--at", "2026-01-31T15:00:00Z")
    assert again.returncode == 1
    assert "ended already, at 2026-01-31T14:00:00Z" in again.stderr
    assert fleetwatt("end", "s-1", "--at", "2026-01-31T14:00:00Z").returncode == 0
    listed = fleetwatt("list", "--vehicle-id", "v-1", "--from", "2026-01-31T13:59:59Z")
    assert "s-1" in listed.stdout
    assert "2026-01-31T14:00:00Z" in listed.stdout
    assert "s-1" not in fleetwatt("list", "--to", "2026-01-31T12:00:00Z").stdout
    for arguments in (("end", "nobody"), ("start", "a b", "m-1"), ("list", "--from", "soon")):
        assert fleetwatt(*arguments).returncode == 1
    trail = await rows(owner, "select action, source from session_change order by change_id")
    assert [tuple(row.values()) for row in trail] == [("started", "cli"), ("ended", "cli")]


async def test_seeded_sessions_are_traced_as_such(fleetwatt: Run, owner: Owner) -> None:
    """What `fleetwatt seed` stores says so in the trail."""
    result = fleetwatt("3", "3", command="seed")
    assert result.returncode == 0, result.stderr
    found = await rows(owner, "select distinct source from session_change")
    assert [row["source"] for row in found] == ["seed"]

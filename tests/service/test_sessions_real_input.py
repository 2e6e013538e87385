"""Real charging sessions imported from files, against what the files say, computed here without the importer.

The files lie beside the checkout, not in it; without them these tests are skipped, visibly.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from service.settings import Settings
from tests.support.strategies import Owner, rows

DATA = Path(__file__).parents[3] / "shared/data"
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real measurements is not here"),
]

DUNDEE = (
    *("--session-id", "Charging event", "--vehicle-id", "User ID", "--meter-id", "CP ID,Connector"),
    *("--start", "Start Date,Start Time", "--end", "End Date,End Time", "--time-format", "%d/%m/%Y %H:%M"),
    *("--tz", "Europe/London", "--energy", "Total kWh"),
)
STATION = (
    *("--session-id", "Session", "--vehicle-id", "=guest", "--meter-id", "CCS"),
    *("--start", "Arrival", "--end", "Departure", "--tz", "Europe/Zurich", "--energy", "Energy (Wh)"),
)
ZONES = {
    "sessions_dundee.csv": ZoneInfo("Europe/London"),
    "sessions_dc_station.csv": ZoneInfo("Europe/Zurich"),
}

Importer = Callable[..., dict[str, Any]]


class Expected(NamedTuple):
    """What must come of a file: sessions by id, and lines refused with code and field."""

    sessions: dict[str, tuple[str, str, datetime, datetime | None]]
    refused: dict[int, tuple[str, str]]


class Row(NamedTuple):
    """A row of either file, its times as written, in local time."""

    line: int
    session: str
    vehicle: str
    meter: str
    start: str
    end: str
    energy: str


@pytest.fixture
def sessions_import(settings: Settings, tmp_path: Path) -> Importer:
    """Run `fleetwatt sessions import` on the test's database; give its summary and the refused rows."""

    def run(file: str, *arguments: str) -> dict[str, Any]:
        report = tmp_path / "refused.ndjson"
        command = [sys.executable, "-m", "service", "sessions", "import", str(DATA / file), *arguments]
        result = subprocess.run(
            [*command, "--json", "--report", str(report)],
            env={**os.environ, "FLEETWATT_DATABASE_URL": settings.database_url},
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        summary: dict[str, Any] = json.loads(result.stdout)
        assert result.returncode == (summary["refused"] > 0), result.stdout + result.stderr
        return summary | {"lines": [json.loads(line) for line in report.read_text().splitlines()]}

    return run


@cache
def read(file: str) -> list[Row]:
    """Read a file with Python's own csv."""
    with (DATA / file).open(newline="") as source:
        found = list(enumerate(csv.DictReader(source), 2))
    if file == "sessions_dundee.csv":
        return [
            Row(
                line,
                row["Charging event"],
                row["User ID"],
                f"{row['CP ID']}:{row['Connector']}",
                f"{row['Start Date']} {row['Start Time']}".strip(),
                f"{row['End Date']} {row['End Time']}".strip(),
                row["Total kWh"],
            )
            for line, row in found
        ]
    return [
        Row(
            line,
            row["Session"],
            "guest",
            row["CCS"],
            row["Arrival"],
            row["Departure"],
            row["Energy (Wh)"],
        )
        for line, row in found
    ]


def instant(file: str, text: str) -> datetime:
    """Read a local time; none of these two files lies in an hour that a clock change skips or repeats."""
    form = "%d/%m/%Y %H:%M" if file == "sessions_dundee.csv" else "%Y-%m-%d %H:%M:%S"
    local = datetime.strptime(text, form).replace(tzinfo=ZONES[file])
    assert local.utcoffset() == local.replace(fold=1).utcoffset()
    return local.astimezone(UTC)


def fault(row: Row, start: datetime, end: datetime | None, *, max_hours: float, open_ends: bool) -> Any:
    """Say why a row is no session by itself, as the options have it."""
    if not row.vehicle:
        return "missing", "vehicleId"
    if end is None:
        if not open_ends:
            return "missing", "endedAt"
    elif end <= start:
        return ("no_duration" if end == start else "ends_before_start"), "endedAt"
    if row.energy and float(row.energy) < 0:
        return "negative_energy", "energy"
    if end is not None and end - start > timedelta(hours=max_hours):
        return "too_long", "endedAt"
    return None


def expect(file: str, *, max_hours: float = 1e6, open_ends: bool = False) -> Expected:
    """Work out from the file alone which rows are sessions: of two that overlap, the earlier one."""
    refused: dict[int, tuple[str, str]] = {}
    good: dict[str, list[tuple[datetime, datetime | None, Row]]] = defaultdict(list)
    for row in read(file):
        start = instant(file, row.start)
        end = instant(file, row.end) if row.end else None
        if why := fault(row, start, end, max_hours=max_hours, open_ends=open_ends):
            refused[row.line] = why
        else:
            good[row.meter].append((start, end, row))
    sessions = {}
    for found in good.values():
        busy_until = datetime.min.replace(tzinfo=UTC)
        forever = datetime.max.replace(tzinfo=UTC)
        for start, end, row in sorted(found, key=lambda one: (one[0], one[1] or forever, one[2].vehicle)):
            if start < busy_until:
                refused[row.line] = "session_overlap", "meterId"
                continue
            busy_until = end or forever
            sessions[row.session] = (row.vehicle, row.meter, start, end)
    return Expected(sessions, refused)


async def stored(owner: Owner) -> dict[str, tuple[str, str, datetime, datetime | None]]:
    """Give the sessions in the database."""
    found = await rows(
        owner,
        "select session_id, vehicle_id, meter_id, lower(during) as s, upper(during) as e "
        "from charging_session",
    )
    return {row["session_id"]: (row["vehicle_id"], row["meter_id"], row["s"], row["e"]) for row in found}


async def traces(owner: Owner) -> list[list[dict[str, Any]]]:
    """Give all that an import could leave behind, down to when rows were last written."""
    return [
        await rows(owner, "select *, xmin::text from charging_session order by session_id"),
        await rows(owner, "select *, xmin::text from session_change order by change_id"),
        await rows(owner, "select * from dead_letter"),
    ]


def check(told: dict[str, Any], expected: Expected, file: str, *, again: bool) -> None:
    """Hold a summary and its refused rows against what must come of a file."""
    assert {line["line"]: (line["code"], line["field"]) for line in told["lines"]} == expected.refused
    assert [line["line"] for line in told["lines"]] == sorted(expected.refused)
    count = len(expected.sessions)
    assert (told["stored"], told["alreadyThere"]) == ((0, count) if again else (count, 0))
    assert told["rows"] == count + told["refused"] == len(read(file))
    assert told["refused"] == len(expected.refused)
    counted = Counter(expected.refused.values())
    assert {(one["code"], one["field"]): one["count"] for one in told["reasons"]} == counted
    source = (DATA / file).read_text().splitlines()
    meters = {row.line: row.meter for row in read(file)}
    for line in told["lines"]:
        assert line["raw"] == source[line["line"] - 1]
        assert line["message"]
        if line["code"] == "session_overlap":
            [named] = [part for part in line["message"].split() if part in expected.sessions]
            assert expected.sessions[named][1] == meters[line["line"]]


@pytest.mark.parametrize(
    ("file", "options", "rules"),
    [
        ("sessions_dundee.csv", DUNDEE, {}),
        (
            "sessions_dundee.csv",
            (*DUNDEE, "--max-hours", "24", "--open-ends"),
            {"max_hours": 24, "open_ends": True},
        ),
        ("sessions_dc_station.csv", STATION, {}),
    ],
    ids=["dundee", "dundee-bounded-open", "dc-station"],
)
async def test_every_row_is_a_session_or_refused(
    sessions_import: Importer, owner: Owner, file: str, options: tuple[str, ...], rules: dict[str, Any]
) -> None:
    """Sessions, refused rows and their reasons equal the file's, and a second import changes nothing."""
    expected = expect(file, **rules)
    # A dry run says the same without a database, and stores nothing.
    dry = sessions_import(file, *options, "--dry-run")
    assert await stored(owner) == {}
    first = sessions_import(file, *options)
    assert dry["dryRun"]
    assert (dry | {"dryRun": False}) == first
    check(first, expected, file, again=False)
    assert await stored(owner) == expected.sessions
    before = await traces(owner)
    trail = Counter((row["action"], row["source"]) for row in before[1])
    still_open = sum(end is None for *_, end in expected.sessions.values())
    assert trail == Counter(
        {
            key: count
            for key, count in {
                ("started", "import"): still_open,
                ("recorded", "import"): len(expected.sessions) - still_open,
            }.items()
            if count
        }
    )
    second = sessions_import(file, *options)
    check(second, expected, file, again=True)
    assert second["lines"] == first["lines"]
    assert await traces(owner) == before


async def test_the_files_hold_what_they_are_said_to(owner: Owner, sessions_import: Importer) -> None:
    """The files are the ones described, with something of each fault in them; and ids can be left out."""
    expected = expect("sessions_dundee.csv", max_hours=24)
    counted = Counter(expected.refused.values())
    assert len(read("sessions_dundee.csv")) == 19_227
    assert sum(not row.end for row in read("sessions_dundee.csv")) == 72
    assert counted["negative_energy", "energy"] > 0
    assert counted["session_overlap", "meterId"] > 0
    assert counted["no_duration", "endedAt"] > 0
    assert counted["too_long", "endedAt"] > 500
    assert expect("sessions_dc_station.csv").refused == {}
    # Ids that follow from vehicle, meter and start are as good as the file's own.
    without_ids = STATION[2:]
    assert sessions_import("sessions_dc_station.csv", *without_ids)["stored"] == 1878
    assert sessions_import("sessions_dc_station.csv", *without_ids)["alreadyThere"] == 1878
    values = sorted((await stored(owner)).values())
    assert values == sorted(expect("sessions_dc_station.csv").sessions.values())

"""`fleetwatt export`: whole, exact, of one moment, and readable again."""

from __future__ import annotations

import asyncio
import csv
import gzip
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import psycopg
import pytest

from service import paths
from service.errors import DatabaseUnavailableError, ExportError, FleetwattError
from service.exporter import run
from service.exporter.datasets import DATASETS
from service.exporter.formats import Format
from service.exporter.run import ExportOptions, ExportReport, export
from service.importer.run import ImportOptions, import_file
from service.readings import MeterReading, Reading, VehicleReading
from service.sessions.imports import SessionImport, import_sessions
from service.sessions.rows import SessionMapping
from service.settings import Settings
from tests.support.servers import Postgres
from tests.support.snapshots import METER_SUMS, VEHICLE_SUMS, finish_hours, insert, meter, vehicle

START = datetime(2026, 1, 30, 21, 30, tzinfo=UTC)
RAW = {
    "meter": "select meter_id, recorded_at, kwh_consumed_ac, voltage from meter_reading order by 1, 2",
    "vehicle": "select vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp from vehicle_reading "
    "order by 1, 2",
}


def connect(settings: Settings) -> psycopg.Connection[Any]:
    """Connect as the owner."""
    return psycopg.connect(settings.migrate_database_url, autocommit=True, options="-c timezone=UTC")


def odd_readings(chance: Random) -> list[Reading]:
    """Make readings of some days whose numbers have all their digits, and whose times have microseconds."""
    found: list[Reading] = []
    for number in range(300):
        at = START + timedelta(
            minutes=13 * number, microseconds=chance.randrange(2) * chance.randrange(10**6)
        )
        odd = chance.choice([0.1 + 0.2, 5e-324, 1e-7, 1000.0, 0.0, chance.random()])
        found.append(MeterReading(f"m.{number % 3}:a", at, odd, chance.uniform(0, 1000)))
        found.append(
            VehicleReading(f"v-{number % 2}_b", at, chance.uniform(0, 100), odd, chance.uniform(-60, 150))
        )
    return found


def store(settings: Settings, readings: list[Reading]) -> None:
    """Store readings as the writer does."""
    with connect(settings) as connection:
        insert(connection, readings)


def write(settings: Settings, what: str, path: Path, form: Format, **more: Any) -> ExportReport:
    """Export something."""
    return export(ExportOptions(what=what, path=path, form=form, **more), settings)


def lines(path: Path) -> list[dict[str, Any]]:
    """Read NDJSON."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["{}.csv", "{}.csv.gz", "{}.ndjson", "{}.ndjson.gz"])
def test_what_was_exported_can_be_imported(
    settings: Settings, postgres: Postgres, tmp_path: Path, name: str
) -> None:
    """In another database there are the same rows then, to the last digit."""
    store(settings, odd_readings(Random(name)))
    form: Format = "csv" if ".csv" in name else "ndjson"
    with postgres.database() as other:
        elsewhere = msgspec.structs.replace(settings, database_url=postgres.url("fleetwatt_service", other))
        for what in ("meter", "vehicle"):
            path = tmp_path / name.format(what)
            assert write(settings, what, path, form).rows == 300
            report = asyncio.run(import_file(ImportOptions(path=path), elsewhere))
            assert (report.accepted, report.rejected) == (300, 0)
        with postgres.admin(other) as there, connect(settings) as here:
            for statement in RAW.values():
                assert (
                    there.execute(statement.encode()).fetchall()
                    == here.execute(statement.encode()).fetchall()
                )


def test_parquet_has_types_and_units(settings: Settings, tmp_path: Path) -> None:
    """Ids are dictionaries, times UTC to the microsecond, numbers exact; columns tell their units."""
    parquet = pytest.importorskip("pyarrow.parquet")
    store(settings, odd_readings(Random(3)))
    path = tmp_path / "vehicle.parquet"
    write(settings, "vehicle", path, "parquet")
    table = parquet.read_table(path)
    assert [str(field.type).partition("<")[0] for field in table.schema] == [
        "dictionary",
        "timestamp[us, tz=UTC]",
        "double",
        "double",
        "double",
    ]
    assert table.schema.field("kwh_delivered_dc").metadata == {b"unit": b"kWh"}
    assert json.loads(table.schema.metadata[b"fleetwatt"])["dataset"] == "vehicle"
    assert parquet.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    with connect(settings) as connection:
        stored = connection.execute(RAW["vehicle"].encode()).fetchall()
    assert sorted(tuple(row.values()) for row in table.to_pylist()) == stored


def test_parquet_without_its_package(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the extra, and no file is there."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExportError, match="with the extra `parquet`"):
        write(settings, "meter", tmp_path / "x.parquet", "parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["meter", "vehicle"])
@pytest.mark.parametrize(("rollup", "bin_", "width"), [("hourly", "hour", 1), ("daily", "day", 24)])
def test_rollups_are_exact_to_the_moment(
    settings: Settings, tmp_path: Path, kind: str, rollup: str, bin_: str, width: int
) -> None:
    """They are what the raw rows add up to: refreshed hours, hours with late readings, and the rest."""
    chance = Random(kind + rollup)
    make = meter if kind == "meter" else vehicle
    trail = [make(f"d{n % 2}", START + timedelta(minutes=11 * n), chance) for n in range(400)]
    with connect(settings) as connection:
        # Chunks that days do not begin with.
        connection.execute(f"select set_chunk_time_interval('{kind}_reading', interval '5 hours')".encode())
        insert(connection, trail[:300:2] + trail[1:300:2])
        finish_hours(connection, START.replace(minute=0) + timedelta(hours=40))
        connection.execute("call refresh_rollups()")
        insert(connection, [make("d0", START + timedelta(minutes=5 + 700 * n), chance) for n in range(3)])
        insert(connection, trail[300:])
        sums = METER_SUMS if kind == "meter" else VEHICLE_SUMS
        raw = connection.execute(
            (
                f"select {kind}_id, time_bucket('{width} hours', recorded_at), {sums} "  # noqa: S608
                f"from {kind}_reading group by 1, 2 order by 2, 1"
            ).encode()
        ).fetchall()
    path = tmp_path / "x.ndjson"
    for window in ({}, {"window_from": START + timedelta(hours=3), "window_to": START + timedelta(hours=31)}):
        write(settings, f"{kind}-{rollup}", path, "ndjson", **window)
        told = [
            (row.pop(f"{kind}Id"), datetime.fromisoformat(row.pop(bin_)), *row.values())
            for row in lines(path)
        ]
        first, last = window.get("window_from"), window.get("window_to")
        assert told == [
            row for row in raw if (first is None or row[1] >= first) and (last is None or row[1] < last)
        ]
        assert told


def test_rollups_outlive_raw_rows(settings: Settings, tmp_path: Path) -> None:
    """Hours whose raw rows have been dropped are exported as they were rolled up, and so are their days."""
    chance = Random(1)
    trail = [meter("m", START + timedelta(minutes=30 * n), chance) for n in range(200)]
    path = tmp_path / "x.csv"
    with connect(settings) as connection:
        insert(connection, trail)
        connection.execute("call refresh_rollups()")
        before = []
        for what in ("meter-hourly", "meter-daily"):
            write(settings, what, path, "csv")
            before.append(path.read_text())
        connection.execute(
            "select drop_chunks('meter_reading', %s::timestamptz)", (START + timedelta(days=2),)
        )
        # Late, and into an hour that is gone: the rollup stays what it is.
        insert(connection, [meter("m", START + timedelta(minutes=7), chance)])
    for what, was in zip(("meter-hourly", "meter-daily"), before, strict=True):
        write(settings, what, path, "csv")
        assert path.read_text() == was


def test_sessions(settings: Settings, postgres: Postgres, tmp_path: Path) -> None:
    """Those that touch the window, whole; an open one has no end. Devices are vehicles or meters.

    What was exported as CSV can be imported elsewhere.
    """
    with connect(settings) as connection:
        for name, vehicle_id, meter_id, first, last in (
            ("a", "v1", "m1", 0, 2),
            ("b", "v2", "m1", 3, 5),
            ("c", "v1", "m2", 4, None),
        ):
            connection.execute(
                "insert into charging_session values (%s, %s, %s, tstzrange(%s, %s))",
                (
                    name,
                    vehicle_id,
                    meter_id,
                    START + timedelta(hours=first),
                    None if last is None else START + timedelta(hours=last),
                ),
            )
    path = tmp_path / "s.ndjson"
    write(settings, "sessions", path, "ndjson", window_from=START + timedelta(hours=2), devices=("v1",))
    [found] = lines(path)
    assert (found["sessionId"], found["endedAt"]) == ("c", None)
    write(settings, "sessions", path, "ndjson", window_to=START + timedelta(hours=4), devices=("m1",))
    assert [found["sessionId"] for found in lines(path)] == ["a", "b"]
    csv_file = tmp_path / "s.csv"
    assert write(settings, "sessions", csv_file, "csv").rows == 3
    with postgres.database() as other:
        elsewhere = msgspec.structs.replace(settings, database_url=postgres.url("fleetwatt_service", other))
        sessions = SessionImport(path=csv_file, mapping=SessionMapping(open_ends=True))
        assert asyncio.run(import_sessions(sessions, elsewhere)).rejected == 0
        again = tmp_path / "again.csv"
        write(elsewhere, "sessions", again, "csv")
        assert again.read_text() == csv_file.read_text()
    rows = list(csv.DictReader(csv_file.read_text().splitlines()))
    assert [(row["session_id"], row["ended_at"] == "") for row in rows] == [
        ("a", False),
        ("b", False),
        ("c", True),
    ]


def test_it_is_of_one_moment(settings: Settings, tmp_path: Path) -> None:
    """What is stored while an export runs is not in it, also not in the parts that are read later."""
    chance = Random(5)
    store(settings, [meter("m", START + timedelta(days=day), chance) for day in range(3)])

    def meanwhile(rows: int, _bytes: int, _share: float) -> None:
        late = START + timedelta(days=rows - 1, minutes=rows)
        store(settings, [meter("m", late + timedelta(days=1), chance)])

    path = tmp_path / "m.csv"
    options = ExportOptions(what="meter", path=path, form="csv")
    assert export(options, settings, meanwhile).rows == 3
    assert write(settings, "meter", path, "csv").rows == 6


def test_rows_are_not_gathered(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of any size goes through block by block, in each format."""
    monkeypatch.setattr(run, "_BLOCK_BYTES", 500)
    store(settings, odd_readings(Random(9)))
    for form in ("csv", "ndjson", "parquet"):
        told: list[int] = []
        options = ExportOptions(what="vehicle", path=tmp_path / form, form=form)
        assert export(options, settings, lambda rows, *_: told.append(rows)).rows == 300  # noqa: B023
        assert max(later - earlier for earlier, later in itertools.pairwise([0, *told])) < 20


def test_a_file_is_whole_or_as_it_was(settings: Settings, tmp_path: Path) -> None:
    """Where an export breaks off, what stood there stays, and nothing else is left behind."""
    store(settings, odd_readings(Random(6)))
    path = tmp_path / "m.csv.gz"
    path.write_text("before")

    def fail(_rows: int, _bytes: int, _share: float) -> None:
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        export(ExportOptions(what="meter", path=path, form="csv"), settings, fail)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("m.csv.gz", "before")]
    with pytest.raises(ExportError, match="No such file"):
        write(settings, "meter", tmp_path / "nowhere/m.csv", "csv")
    away = msgspec.structs.replace(settings, database_url="postgresql://nobody@127.0.0.1:1/x")
    with pytest.raises(DatabaseUnavailableError):
        write(away, "meter", path, "csv")


@pytest.mark.either_edition
def test_what_a_database_says_is_told_in_words(
    postgres: Postgres, settings: Settings, tmp_path: Path
) -> None:
    """A replica that has to go on ends an export, and says so; an empty database has nothing to export."""
    store(settings, odd_readings(Random(6)))

    def conflict(_rows: int, _bytes: int, _share: float) -> None:
        raise psycopg.errors.SerializationFailure("canceling statement due to conflict with recovery\nDETAIL")

    path = tmp_path / "m.csv"
    with pytest.raises(
        ExportError, match=r"replica ended .* \(canceling .* recovery\): export from the primary"
    ):
        export(ExportOptions(what="meter", path=path, form="csv"), settings, conflict)
    with postgres.database(empty=True) as name:
        empty = msgspec.structs.replace(settings, database_url=postgres.url("fleetwatt_service", name))
        with pytest.raises(FleetwattError, match="no schema yet"):
            write(empty, "meter", path, "csv")
    assert not path.exists()


@pytest.mark.either_edition
def test_nothing_to_export(settings: Settings, tmp_path: Path) -> None:
    """An empty database, and an empty window, give files that hold no rows but are whole."""
    for what in DATASETS:
        path = tmp_path / f"{what}.csv"
        assert write(settings, what, path, "csv").rows == 0
        assert path.read_text() == ",".join(column.name for column in DATASETS[what].columns) + "\n"
        assert write(settings, what, path, "csv", window_from=START, window_to=START).rows == 0
    pytest.importorskip("pyarrow.parquet")
    assert write(settings, "meter", tmp_path / "m.parquet", "parquet").rows == 0


@pytest.fixture
def fleetwatt(settings: Settings) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run `fleetwatt export` on the test's database."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "service", "export", *map(str, arguments)],
            env={**os.environ, "FLEETWATT_DATABASE_URL": settings.database_url},
            capture_output=True,
            check=False,
            timeout=50,
        )

    return run


@pytest.mark.either_edition
def test_command(
    fleetwatt: Callable[..., subprocess.CompletedProcess[bytes]], settings: Settings, tmp_path: Path
) -> None:
    """The name chooses the format; a window and devices narrow it; standard output holds nothing but rows."""
    readings = odd_readings(Random(7))
    store(settings, readings)
    path = tmp_path / "m.csv.gz"
    result = fleetwatt(
        "meter", path, "--from", "2026-01-31T00:00:00Z", "--device", "m.1:a", "--device", "m.9"
    )
    assert result.returncode == 0, result.stderr
    first = datetime(2026, 1, 31, tzinfo=UTC)
    wanted = [
        one
        for one in readings
        if isinstance(one, MeterReading) and one.device_id == "m.1:a" and one.recorded_at >= first
    ]
    rows = list(csv.DictReader(gzip.decompress(path.read_bytes()).decode().splitlines()))
    assert [float(row["kwh_consumed_ac"]) for row in rows] == [one.kwh_consumed_ac for one in wanted]
    assert f"{len(wanted)} rows".encode() in result.stdout

    result = fleetwatt("vehicle", "-", "--format", "ndjson")
    assert len([json.loads(line) for line in result.stdout.splitlines()]) == 300
    assert b"300 rows" in result.stderr

    for arguments, words in (
        (("meter", tmp_path / "m.txt"), b"--format"),
        (("meter", tmp_path / "m.parquet.gz"), b"packed already"),
        (("meter", path, "--from", "yesterday"), b"from"),
        (("meter", path, "--device", "a b"), b"--device"),
    ):
        result = fleetwatt(*arguments)
        assert result.returncode == 1
        assert words in result.stderr


@pytest.mark.either_edition
def test_the_commands_of_the_page(settings: Settings, tmp_path: Path) -> None:
    """All that docs/export.md shows works; what was exported is there already when it comes back."""
    pytest.importorskip("pyarrow")
    store(settings, odd_readings(Random(10)))
    store(settings, [meter("METER-001", START, Random(1)), vehicle("VH-001", START, Random(1))])
    with connect(settings) as connection:
        connection.execute(
            "insert into charging_session values ('s', 'VH-001', 'METER-001', tstzrange('2026-01-30', null))"
        )
    page = (paths.SQL.parent / "docs/export.md").read_text()
    script = "".join(re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLEETWATT_DATABASE_URL": settings.database_url,
    }
    result = subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert {file.name for file in tmp_path.iterdir()} == {"january.csv.gz", "hours.parquet", "sessions.csv"}
    assert json.loads(result.stdout.splitlines()[3])["meterId"] == "METER-001"
    assert "accepted 0, duplicates" in result.stdout
    assert "0 new sessions, 1 already there" in result.stdout

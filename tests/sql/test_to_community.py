"""From Apache-2 to Community in place: `migrate` turns rollup tables into continuous aggregates."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from service import migrations
from service.errors import FleetwattError
from tests.support import own_server, servers, snapshots
from tests.support.schema_dump import dump, parts
from tests.support.servers import Postgres

START = datetime(2026, 3, 2, 22, 15, tzinfo=UTC)
VEHICLES = ["v0", "v1"]
WHOLE = (START - timedelta(days=1), START + timedelta(days=9))
ANSWERS = (
    "select * from meter_hourly order by 1, 2",
    "select * from vehicle_hourly order by 1, 2",
    "select * from meter_daily order by 1, 2",
    "select * from vehicle_daily order by 1, 2",
    "select * from bi.meter_hourly order by 1, 2",
    "select * from vehicle_performance('v0', '2026-03-01 00:20+00', '2026-03-09 07:40+00')",
    "select * from vehicle_performance('v1', '2026-03-01 00:20+00', '2026-03-09 07:40+00')",
    "select * from fleet_performance('2026-03-01 00:20+00', '2026-03-09 07:40+00') order by 1",
    "select stream, logging_from, refreshed_until, kept_hours from rollup_progress order by 1",
    "select stream, hour from rollup_stale order by 1, 2",
    "select * from meter_state order by 1",
)
# The hours of these are gone; they, too, must be there as before.
GONE = START + timedelta(days=2)


@pytest.fixture(scope="module")
def root() -> Path:
    """Give a server that holds the libraries of both licences."""
    found = servers.community_root()
    if found is None:
        pytest.skip("no TimescaleDB Community here")
    return found


@pytest.fixture
def data() -> Iterator[Path]:
    """Give a place for a data folder."""
    with servers.scratch_dir() as folder:
        yield folder / "postgres"


def licensed(root: Path, data: Path, licence: str) -> Any:
    """Run the server under a licence."""
    return own_server.running(root, data, {"timescaledb.license": licence})


def fill(server: Postgres, name: str) -> None:
    """Make a database as it is after some days of Apache-2: rolled up, late readings, an open hour."""
    with server.admin() as connection:
        connection.execute(f"create database {name}".encode())
    migrations.migrate(server.url("postgres", name))
    chance = Random(2)
    with server.admin(name) as connection:
        for number in range(2):
            start, end = START + timedelta(hours=5 + number), START + timedelta(days=5, hours=number)
            for prefix, vehicle, first, last in (("s", number, start, end), ("o", 1 - number, end, None)):
                connection.execute(
                    "insert into charging_session values (%s, %s, %s, tstzrange(%s, %s))",
                    (f"{prefix}{number}", f"v{vehicle}", f"m{number}", first, last),
                )
        moments = [START + timedelta(minutes=37 * n) for n in range(300)]
        for make, kind in ((snapshots.meter, "m"), (snapshots.vehicle, "v")):
            snapshots.insert(connection, [make(f"{kind}{n % 2}", at, chance) for n, at in enumerate(moments)])
        snapshots.finish_hours(connection, START.replace(minute=0) + timedelta(days=7))
        connection.execute("call refresh_rollups()")


def add_late(server: Postgres, name: str) -> None:
    """Add late readings, which the rollups do not have yet."""
    chance = Random(3)
    late = [START + timedelta(days=4, minutes=3), START + timedelta(minutes=3)]
    with server.admin(name) as connection:
        snapshots.insert(connection, [snapshots.meter("m0", at, chance) for at in late])
        snapshots.insert(connection, [snapshots.vehicle("v1", at, chance) for at in late])


def answers(server: Postgres, name: str) -> list[list[Any]]:
    """Ask everything whose answer must not change."""
    with psycopg.connect(server.url("postgres", name)) as connection:
        return [connection.execute(statement.encode()).fetchall() for statement in ANSWERS]


def test_tables_become_continuous_aggregates(root: Path, data: Path) -> None:
    """Answers, progress and stale hours stay, rollups without raw rows, too; and it goes on from there."""
    with licensed(root, data, "apache") as server:
        for name in ("whole", "dropped"):
            fill(server, name)
        with server.admin("dropped") as connection:
            for table in ("meter_reading", "vehicle_reading"):
                connection.execute(f"select drop_chunks('{table}', '{GONE}'::timestamptz)".encode())
        for name in ("whole", "dropped"):
            add_late(server, name)
        before = {name: answers(server, name) for name in ("whole", "dropped")}

    with licensed(root, data, "timescale") as server:
        assert {name: answers(server, name) for name in before} == before
        told: list[str] = []
        for name in before:
            migrations.migrate(server.url("postgres", name), told.append)
        assert sum("have become continuous aggregates" in text for text in told) == len(before)
        assert {name: answers(server, name) for name in before} == before

        with server.admin("dropped") as connection:
            # The late reading of an hour that is gone has no effect; the other one has.
            connection.execute("call refresh_rollups()")
            kept = connection.execute("select kept_hours from rollup_progress order by stream").fetchall()
            assert kept == [(1,), (1,)]
            assert connection.execute("select count(*) from rollup_stale").fetchone() == (0,)
        after = answers(server, "dropped")
        day = after[0].index(next(row for row in after[0] if row[1] >= GONE))
        assert after[0][:day] == before["dropped"][0][:day]

        with psycopg.connect(server.url("postgres", "whole"), autocommit=True) as connection:
            windows = [WHOLE, (START + timedelta(hours=7, minutes=5), START + timedelta(days=6, minutes=50))]
            for _ in range(2):
                assert snapshots.wrong_answers(connection, VEHICLES, windows) == []
                assert snapshots.broken_promises(connection) == []
                snapshots.finish_hours(connection, START.replace(minute=0) + timedelta(days=8))
                connection.execute("call refresh_rollups()")
            assert snapshots.wrong_views(connection) == []
            jobs = connection.execute(
                "select scheduled, owner::text from timescaledb_information.jobs "
                "where proc_name = 'refresh_rollups'"
            ).fetchall()
            assert jobs == [(True, "fleetwatt_owner")]

        with server.admin() as connection:
            connection.execute("create database fresh")
        migrations.migrate(server.url("postgres", "fresh"))
        assert parts(server, "whole") == parts(server, "fresh")


def test_nothing_is_lost_meanwhile(root: Path, data: Path) -> None:
    """Readings are added and answers are right all the time while the rollups move."""
    with licensed(root, data, "apache") as server:
        fill(server, "busy")
        before = answers(server, "busy")
    stop = threading.Event()
    added: list[datetime] = []
    wrong: list[Any] = []

    def add() -> None:
        chance = Random(4)
        with psycopg.connect(server.url("fleetwatt_service", "busy"), autocommit=True) as connection:
            while not stop.is_set():
                at = START + timedelta(days=3, seconds=len(added) + 1)
                snapshots.insert(connection, [snapshots.meter("m9", at, chance)])
                added.append(at)

    def ask() -> None:
        with psycopg.connect(server.url("postgres", "busy"), autocommit=True) as connection:
            while not stop.is_set():
                wrong.extend(snapshots.wrong_answers(connection, VEHICLES, [WHOLE]))

    with licensed(root, data, "timescale") as server:
        with server.admin("busy") as connection:
            for role in ("fleetwatt_service", "fleetwatt_owner"):
                connection.execute(f"alter role {role} login password '{servers.PASSWORD}'".encode())
        threads = [threading.Thread(target=job) for job in (add, ask, ask)]
        for thread in threads:
            thread.start()
        try:
            migrations.migrate(server.url("fleetwatt_owner", "busy"))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert wrong == []
        assert added
        with psycopg.connect(server.url("postgres", "busy"), autocommit=True) as connection:
            stored = connection.execute("select count(*) from meter_reading where meter_id = 'm9'").fetchone()
            assert stored == (len(added),)
            connection.execute("call refresh_rollups()")
            assert snapshots.broken_promises(connection) == []
        assert [row for row in answers(server, "busy")[2] if row[0] != "m9"] == before[2]


def test_what_is_broken_off_is_begun_anew(root: Path, data: Path) -> None:
    """A user's own view in the way is named and all stays as it was, under either licence."""
    with licensed(root, data, "apache") as server:
        fill(server, "own")
        with server.admin("own") as connection:
            connection.execute("create view mine as select count(*) from public.meter_daily")
        before = answers(server, "own")
    with licensed(root, data, "timescale") as server:
        with pytest.raises(FleetwattError, match="view mine"):
            migrations.migrate(server.url("postgres", "own"))
        assert answers(server, "own") == before
    with licensed(root, data, "apache") as server:
        migrations.migrate(server.url("postgres", "own"))
        add_late(server, "own")
        with server.admin("own") as connection:
            connection.execute("call refresh_rollups()")
            assert snapshots.broken_promises(connection) == []
        before = answers(server, "own")
    with licensed(root, data, "timescale") as server:
        with server.admin("own") as connection:
            with pytest.raises(FleetwattError, match="view mine"):
                migrations.migrate(server.url("postgres", "own"))
            connection.execute("drop view mine")
        migrations.migrate(server.url("postgres", "own"))
        assert answers(server, "own") == before


def test_killed_in_the_middle(root: Path, data: Path) -> None:
    """Where `fleetwatt migrate` is killed while it copies, all is as before, and the next one does it."""
    with licensed(root, data, "apache") as server:
        fill(server, "killed")
        before = answers(server, "killed")
    with licensed(root, data, "timescale") as server, server.admin("killed") as connection:
        with psycopg.connect(server.url("postgres", "killed")) as blocker:
            blocker.execute("lock table vehicle_daily_stored in access exclusive mode")
            migrating = subprocess.Popen(
                [sys.executable, "-m", "service", "migrate"],
                env={**os.environ, "FLEETWATT_MIGRATE_DATABASE_URL": server.url("postgres", "killed")},
            )
            waits = (
                "select count(*) from pg_stat_activity "
                "where application_name = 'fleetwatt migrate' and wait_event_type = 'Lock'"
            )
            while connection.execute(waits).fetchone() != (1,):
                assert migrating.poll() is None
            migrating.kill()
            migrating.wait()
        copied = connection.execute("select count(*) from fleetwatt_next.meter_hourly").fetchone()
        assert copied not in {None, (0,)}
        assert answers(server, "killed") == before
        # Its session at the server may outlive it for a moment, and the next one waits for that.
        migrations.migrate(server.url("postgres", "killed"))
        assert connection.execute("select to_regnamespace('fleetwatt_next')").fetchone() == (None,)
        assert answers(server, "killed") == before


def test_there_is_no_way_back(root: Path, data: Path) -> None:
    """Under Apache-2 a database of Community is refused, with what to do, and stays as it was."""
    with licensed(root, data, "timescale") as server:
        with server.admin() as connection:
            connection.execute("create database back")
        migrations.migrate(server.url("postgres", "back"))
        before = dump(server, "back")
    with licensed(root, data, "apache") as server:
        with pytest.raises(FleetwattError, match=r"timescaledb\.license = timescale"):
            migrations.migrate(server.url("postgres", "back"))
        assert dump(server, "back") == before

"""docs/backup.md, command by command: dump, restore into a new server, and go on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from litestar.testing import AsyncTestClient

from service import paths
from service.app import create_app
from service.embedded.postgres import bin_dir
from service.settings import Settings
from tests.support import own_server, servers, snapshots
from tests.support.schema_dump import parts
from tests.support.servers import Postgres

pytestmark = pytest.mark.anyio

START = datetime(2026, 3, 2, 22, 15, tzinfo=UTC)
PAGE = paths.SQL.parent / "docs/backup.md"
ASKED = "from=2026-03-03T00:20:00Z&to=2026-03-05T07:40:00Z"
ROUTES = (
    f"/v1/analytics/fleet?{ASKED}",
    f"/v1/analytics/fleet?by=hour&{ASKED}",
    f"/v1/analytics/performance/v0?{ASKED}",
    f"/v1/analytics/vehicles/v1/hourly?{ASKED}",
    "/v1/sessions",
    "/v1/dead-letters",
    "/v1/analytics/vehicles/states",
    "/v1/analytics/meters/states",
    "/v1/ingest/meter/m1/current",
)


def commands(heading: str) -> str:
    """Give the shell commands under a heading of the page."""
    section = re.search(rf"^## {heading}$(.*?)^## ", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None
    [block] = re.findall(r"^```sh\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)
    return str(block)


def run(script: str, server: Postgres, folder: Path, **variables: str) -> None:
    """Run commands of the page in a folder; only the role that every server has may be there already."""
    programs = os.pathsep.join([str(bin_dir(server.root)), str(Path(sys.executable).parent)])
    result = subprocess.run(
        ["bash", "-eu", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    errors = [line for line in result.stderr.splitlines() if "ERROR" in line]
    assert [line for line in errors if 'role "postgres" already exists' not in line] == []


def settings_of(server: Postgres, name: str) -> Settings:
    """Give settings of a service on a database."""
    return Settings(
        database_url=server.url("fleetwatt_service", name),
        migrate_database_url=server.url("fleetwatt_owner", name),
        http_hosts="testserver.local",
    )


def fill(server: Postgres, name: str) -> None:
    """Fill a database: rolled-up days, late readings, an open hour, sessions, and many transactions."""
    chance = Random(8)
    with server.admin(name) as connection:
        moments = [START + timedelta(minutes=23 * n) for n in range(250)]
        for make, kind in ((snapshots.meter, "m"), (snapshots.vehicle, "v")):
            snapshots.insert(connection, [make(f"{kind}{n % 2}", at, chance) for n, at in enumerate(moments)])
        snapshots.finish_hours(connection, START.replace(minute=0) + timedelta(days=3))
        connection.execute("call refresh_rollups()")
        snapshots.insert(connection, [snapshots.meter("m0", START + timedelta(hours=31, minutes=1), chance)])
        # So that transactions have higher numbers here than in a new server.
        connection.execute(
            "do $$ begin for n in 1..20000 loop perform pg_current_xact_id(); commit; end loop; end $$"
        )
        for number in range(2):
            connection.execute(
                "insert into charging_session values (%s, %s, %s, tstzrange(%s, %s))",
                (f"s{number}", f"v{number}", f"m{number}", START + timedelta(hours=number), None),
            )
        connection.execute("select evaluate_alerts()")


async def answers(settings: Settings) -> list[Any]:
    """Ask the routes whose answers must be the same."""
    async with AsyncTestClient(create_app(settings)) as client:
        found = [await client.get(route) for route in ROUTES]
    assert [answer.status_code for answer in found] == [200] * len(ROUTES)
    return [answer.json() for answer in found]


async def refuse_something(settings: Settings) -> None:
    """Send what becomes a dead letter."""
    async with AsyncTestClient(create_app(settings)) as client:
        answer = await client.post("/v1/telemetry", json=[{"meterId": "m0", "voltage": "high"}])
        assert answer.status_code == 400


@pytest.fixture
def new_server(postgres: Postgres) -> Iterator[Postgres]:
    """Run another server, in which there is nothing yet."""
    with (
        servers.scratch_dir() as folder,
        own_server.running(postgres.root, folder / "postgres") as server,
    ):
        yield server


async def test_dump_and_restore(
    postgres: Postgres, database: str, new_server: Postgres, edition: str, tmp_path: Path
) -> None:
    """Answers, schema and rights are equal; the new one takes readings and rolls them up."""
    old = settings_of(postgres, database)
    fill(postgres, database)
    await refuse_something(old)
    before = await answers(old)

    run(commands("Dump"), postgres, tmp_path, OLD=postgres.url("postgres", database))
    run(commands("Restore"), postgres, tmp_path, NEW=new_server.url("postgres", "").removesuffix("/"))

    new = settings_of(new_server, "fleetwatt")
    assert await answers(new) == before
    assert parts(new_server, "fleetwatt") == parts(postgres, database)
    with psycopg.connect(new.migrate_database_url, autocommit=True) as connection:
        future = connection.execute(
            "select max(c.changed_by) > pg_snapshot_xmax(pg_current_snapshot()), "
            "coalesce(bool_or(pg_snapshot_xmax(e.seen) > pg_snapshot_xmax(pg_current_snapshot())), false) "
            "from session_change as c left join alert_evaluation as e on true"
        ).fetchone()
        assert future == (False, False)

    async with AsyncTestClient(create_app(new)) as client:
        at = START + timedelta(hours=12, minutes=1)
        reading = {"meterId": "m1", "kwhConsumedAc": 0.5, "voltage": 230.0, "timestamp": at.isoformat()}
        for expected in ({"accepted": 1, "duplicates": 0}, {"accepted": 0, "duplicates": 1}):
            answer = await client.post("/v1/telemetry", json=[reading])
            assert {name: answer.json()[name] for name in expected} == expected
    windows = [(START - timedelta(days=1), START + timedelta(days=9))]
    with psycopg.connect(new.migrate_database_url, autocommit=True) as connection:
        assert snapshots.wrong_answers(connection, ["v0", "v1"], windows) == []
        refresh = "call refresh_rollups()"
        if edition == "community":
            jobs = connection.execute(
                "select job_id, scheduled from timescaledb_information.jobs "
                "where proc_name = 'refresh_rollups'"
            ).fetchall()
            [(job, scheduled)] = jobs
            assert scheduled
            refresh = f"call run_job({job})"
        connection.execute(refresh.encode())
        assert connection.execute("select count(*) from rollup_stale").fetchone() == (0,)
        assert snapshots.broken_promises(connection) == []
        assert snapshots.wrong_answers(connection, ["v0", "v1"], windows) == []

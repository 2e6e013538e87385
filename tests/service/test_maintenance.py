"""The refresh of the rollups as processes run it: who does it, one at a time, and what it tells."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from litestar.testing import AsyncTestClient
from psycopg import AsyncConnection

from service import migrations
from service.app import create_app
from service.maintenance.rollups import Rollups
from service.settings import Settings
from tests.support import servers
from tests.support.servers import Postgres

pytestmark = pytest.mark.anyio

Owner = AsyncConnection[dict[str, Any]]
HELD = (
    "select pid from pg_locks where locktype = 'advisory' and classid = 1718383735 and objid = 2 "
    "and database = (select oid from pg_database where datname = current_database())"
)
DAY = datetime(2026, 1, 31, tzinfo=UTC)


def readings(count: int) -> list[dict[str, Any]]:
    """Give a meter's readings, one a minute."""
    return [
        {
            "meterId": "m",
            "kwhConsumedAc": 0.5,
            "voltage": 230,
            "timestamp": (DAY + timedelta(minutes=minute)).isoformat(),
        }
        for minute in range(count)
    ]


async def progress(owner: Owner) -> dict[str, Any]:
    """Give how far the meters are rolled up."""
    cursor = await owner.execute(
        "select nullif(refreshed_until, '-infinity') as refreshed_until, refreshed_at, failures, last_error "
        "from rollup_progress where stream = 'meter'"
    )
    row = await cursor.fetchone()
    assert row is not None
    return row


async def first_turn(owner: Owner, edition: str) -> None:
    """Wait until the service that answers has had its first turn: while that refreshes, others do nothing."""
    if edition == "community":
        return
    async with asyncio.timeout(20):
        while (await progress(owner))["refreshed_at"] is None:
            await asyncio.sleep(0.05)
        # The lock is let go after that is noted.
        while await (await owner.execute(HELD)).fetchall():
            await asyncio.sleep(0.05)


async def test_the_service_refreshes_where_the_database_does_not(
    api: AsyncTestClient[Any], settings: Settings, owner: Owner, edition: str
) -> None:
    """On Apache-2 a turn rolls up what is finished; on Community it leaves that to the database's job."""
    await first_turn(owner, edition)
    await api.post("/v1/telemetry", json=readings(90))
    await Rollups(settings).turn()
    cursor = await owner.execute("select hour, readings, kwh_ac from meter_hourly_stored order by hour")
    stored = await cursor.fetchall()
    if edition == "apache":
        assert [(row["readings"], row["kwh_ac"]) for row in stored] == [(60, 30), (30, 15)]
    else:
        assert stored == []
        cursor = await owner.execute(
            "select schedule_interval from timescaledb_information.jobs where proc_name = 'refresh_rollups'"
        )
        assert await cursor.fetchall() == [{"schedule_interval": timedelta(minutes=1)}]


async def test_a_running_service_keeps_refreshing(settings: Settings, owner: Owner, edition: str) -> None:
    """A late reading is rolled up soon, by the process that serves HTTP, without anybody asking."""
    if edition == "community":
        pytest.skip("here the database does it: see the test of its job")
    quick = msgspec.structs.replace(settings, rollup_refresh_s=0.1)
    async with AsyncTestClient(create_app(quick)) as client:
        async with asyncio.timeout(20):
            while (await progress(owner))["refreshed_at"] is None:
                await asyncio.sleep(0.05)
            await client.post("/v1/telemetry", json=readings(30))
            while True:
                cursor = await owner.execute("select sum(readings)::int as n from meter_hourly_stored")
                if await cursor.fetchone() == {"n": 30}:
                    break
                await asyncio.sleep(0.05)
        cursor = await owner.execute("select count(*) as n from rollup_stale")
        assert await cursor.fetchone() == {"n": 0}


async def test_freshness_is_told(
    api: AsyncTestClient[Any], settings: Settings, owner: Owner, edition: str
) -> None:
    """Stats and metrics say how far the rollups reach, how many hours wait, and what failed."""
    await first_turn(owner, edition)
    before = (await api.get("/v1/analytics/stats")).json()["rollups"]
    assert set(before) == {"meter", "vehicle"}
    await owner.execute("call refresh_rollups()")
    await api.post("/v1/telemetry", json=readings(61))
    await owner.execute("select note_refresh_failure('no luck')")
    await owner.execute("select apply_settings('{rollup_settle_s}', '{120}')")
    told = (await api.get("/v1/analytics/stats")).json()["rollups"]["meter"]
    now = datetime.now(UTC)
    assert told["staleHours"] == 2
    assert now - timedelta(hours=1, minutes=3) < datetime.fromisoformat(told["refreshedUntil"]) <= now
    assert datetime.fromisoformat(told["refreshedAt"]) <= now
    assert (told["failures"], told["lastError"]) == (1, "no luck")
    await owner.execute("update lifecycle set failures = 3")
    # What the loop publishes; a turn on Apache-2 refreshes, too.
    await Rollups(settings).turn()
    text = (await api.get("/metrics")).text
    [until] = re.findall(r'fleetwatt_rollup_refreshed_until_seconds{stream="meter"} ([0-9.e+]+)', text)
    assert float(until) == datetime.fromisoformat(told["refreshedUntil"]).timestamp()
    assert 'fleetwatt_rollup_failures{stream="meter"} 1.0' in text
    [failed_at] = re.findall(r'fleetwatt_rollup_failed_at_seconds{stream="meter"} ([0-9.e+]+)', text)
    assert now - timedelta(minutes=1) < datetime.fromtimestamp(float(failed_at), UTC) <= now
    jobs = dict(re.findall(r'fleetwatt_job_failures{job="(\w+)"} ([0-9.]+)', text))
    # What a test on the other edition set in this process stays.
    assert jobs["drop_expired"] == "3.0"
    assert edition == "apache" or jobs["refresh_rollups"] == "0.0"


async def test_a_refresh_that_fails_is_counted_and_lets_go(
    api: AsyncTestClient[Any], settings: Settings, owner: Owner, edition: str
) -> None:
    """A refresh that the database refuses is noted with its reason; the next one works again."""
    if edition == "community":
        pytest.skip("here the database's own job books count it: see the test of its job")
    await first_turn(owner, edition)
    await api.post("/v1/telemetry", json=readings(30))
    await owner.execute("alter table meter_hourly_stored rename to away")
    with pytest.raises(psycopg.errors.UndefinedTable):
        await Rollups(settings).turn()
    row = await progress(owner)
    assert row["failures"] == 1
    assert "meter_hourly_stored" in row["last_error"]
    await owner.execute("alter table away rename to meter_hourly_stored")
    await Rollups(settings).turn()
    cursor = await owner.execute("select readings from meter_hourly_stored")
    assert await cursor.fetchall() == [{"readings": 30}]


async def test_the_settings_reach_the_database(settings: Settings, owner: Owner) -> None:
    """How long an hour settles is a setting of the service, and the database works by it."""
    await Rollups(msgspec.structs.replace(settings, rollup_settle_s=7200.0)).turn()
    cursor = await owner.execute("select setting('rollup_settle_s', 0) as settle")
    assert await cursor.fetchone() == {"settle": 7200}
    await owner.execute("call refresh_rollups()")
    assert (await progress(owner))["refreshed_until"] <= datetime.now(UTC) - timedelta(hours=2)


def test_the_database_runs_its_job() -> None:
    """On Community, with background workers, the job itself rolls up, and its failures are told."""
    root = servers.community_root()
    if root is None:
        pytest.skip("no TimescaleDB Community here")
    changed = {"timescaledb.max_background_workers": "8", "max_worker_processes": "16"}
    with servers.running_postgres(root, changed) as server:
        _watch_the_job(server)


def _watch_the_job(server: Postgres) -> None:
    # Not a clone: the template is busy where background workers look into it.
    with server.database(empty=True) as name, server.admin(name) as connection:
        # As where an administrator migrates a server of one's own: TimescaleDB runs no job of such a role.
        connection.execute("alter role fleetwatt_owner nologin")
        migrations.migrate(server.url("postgres", name))
        connection.execute(
            "insert into meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage) "
            "select 'm', %s + n * interval '1 minute', 0.5, 230 from generate_series(0, 59) as n",
            (DAY,),
        )
        connection.execute("select _timescaledb_functions.start_background_workers()")
        hurry = (
            "select alter_job(job_id, schedule_interval => interval '1 second', next_start => now()) "
            "from timescaledb_information.jobs where proc_name = 'refresh_rollups'"
        )
        connection.execute(hurry.encode())
        for _ in range(300):
            rows = connection.execute("select readings, kwh_ac from meter_hourly_stored").fetchall()
            if rows:
                break
            connection.execute("select pg_sleep(0.1)")
        assert rows == [(60, 30.0)]
        connection.execute("alter table rollup_stale rename to away")
        connection.execute(hurry.encode())
        for _ in range(300):
            health = connection.execute(
                "select failures, last_error from rollup_health where stream = 'meter'"
            ).fetchone()
            if health and health[0]:
                break
            connection.execute("select pg_sleep(0.1)")
        assert health is not None
        assert health[0]
        assert "rollup_stale" in str(health[1])
        connection.execute(
            "select alter_job(job_id, scheduled => false) from timescaledb_information.jobs "
            "where proc_name = 'refresh_rollups'"
        )
        told = connection.execute("select last_error from rollup_health").fetchall()
        assert all("is off" in str(error) for (error,) in told)
        connection.execute(
            "select delete_job(job_id) from timescaledb_information.jobs where proc_name = 'refresh_rollups'"
        )
        told = connection.execute("select last_error from rollup_health").fetchall()
        assert all("no job" in str(error) for (error,) in told)

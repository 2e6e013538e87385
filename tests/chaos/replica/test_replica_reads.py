"""Analytics from a streaming replica: equal answers, none too old; the primary where it cannot answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import pytest
from prometheus_client import REGISTRY

from service.settings import Settings
from tests.support.http import charge, get, store
from tests.support.replica import Pair, asked
from tests.support.servers import Postgres
from tests.support.serving import PATIENCE_S
from tests.support.strategies import NOW, Owner, at, meter, rfc3339, serving, vehicle

pytestmark = pytest.mark.anyio

READY: Final = "/health/ready"
FRESH: Final = {"Cache-Control": "no-cache"}
WINDOW: Final = f"from={rfc3339(at(-180))}&to={rfc3339(at(60))}"
ADDRESSES: Final = [
    f"/v1/analytics/performance/v-1?{WINDOW}",
    f"/v1/analytics/vehicles/v-1/hourly?{WINDOW}",
    f"/v1/analytics/vehicles/v-1/hourly?{WINDOW}&by=day&tz=Asia/Kolkata",
    f"/v1/analytics/fleet?{WINDOW}",
    f"/v1/analytics/fleet?{WINDOW}&by=meter",
    f"/v1/analytics/fleet?{WINDOW}&by=hour",
    "/v1/analytics/fleet",
    "/v1/analytics/vehicles/states",
    "/v1/analytics/meters/states?limit=1",
]


async def until_told(client: httpx.AsyncClient, state: str) -> None:
    """Wait until the readiness probe tells a state of the replica; it is ready all the time."""
    async with asyncio.timeout(PATIENCE_S):
        while (told := await get(client, READY))["replica"] != state:
            assert told["status"] == "ok"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def well(settings: Settings, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve, with a replica that may be asked."""
    async with serving(settings, **changes) as client:
        await until_told(client, "ok")
        yield client


async def test_answers_are_equal(settings: Settings, owner: Owner, pair: Pair) -> None:
    """Rolled-up hours, late readings, cut sessions: the replica answers all, and as the primary does."""
    wrong = asked("failed"), asked("conflict")
    async with well(settings) as client:
        for device in (1, 2):
            minutes = range(-170, 50)
            await store(client, *(meter(f"m-{device}", minute) for minute in minutes if minute % 7))
            await store(client, *(vehicle(f"v-{device}", minute) for minute in minutes if minute % 5))
        await charge(client, "v-1", "m-1", at(-150), at(20))
        await charge(client, "v-2", "m-2", at(-100), None)
        await owner.execute("call refresh_rollups()")
        await store(client, meter("m-1", -140, kwh=0.5), vehicle("v-1", -140))
        pair.caught_up()
        before = asked("answered")
        for address in ADDRESSES:
            told = await get(client, address)
            assert asked("answered") > before, address
            before = asked("answered")
            assert (await client.get(address, headers=FRESH)).json() == told, address
            assert asked("answered") == before, address
        told = await get(client, "/v1/analytics/stats")
        assert told["readings"]["meter"]["accepted"] == len([m for m in range(-170, 50) if m % 7]) * 2 + 1
        assert told["storage"]["meter_reading"]["bytes"] > 0
    assert (asked("failed"), asked("conflict")) == wrong


@pytest.mark.either_edition
async def test_what_one_has_sent(settings: Settings, pair: Pair) -> None:
    """A state, a session and what is asked for afresh show what was acknowledged; a list may not yet."""
    async with well(settings) as client:
        await store(client, meter(minute=1))
        pair.caught_up()
        with pair.at_replica() as replica:
            replica.execute("select pg_wal_replay_pause()")
            try:
                await store(client, meter(minute=2, kwh=0.5))
                await charge(client, "v-1", "m-1", NOW, None)
                told = await get(client, "/v1/ingest/meter/m-1/current")
                assert told["timestamp"] == rfc3339(at(2))
                assert len((await get(client, "/v1/sessions"))["sessions"]) == 1
                address = "/v1/analytics/meters/states"
                [state] = (await get(client, address))["meters"]
                assert state["timestamp"] == rfc3339(at(1))
                [state] = (await client.get(address, headers=FRESH)).json()["meters"]
                assert state["timestamp"] == rfc3339(at(2))
            finally:
                replica.execute("select pg_wal_replay_resume()")
        pair.caught_up()
        [state] = (await get(client, address))["meters"]
        assert state["timestamp"] == rfc3339(at(2))


@pytest.mark.either_edition
async def test_a_replica_that_is_behind(settings: Settings, pair: Pair) -> None:
    """Past the bound the primary answers; once the replica has caught up, it does again."""
    async with well(settings, read_lag_max_s=2.0) as client:
        with pair.at_replica() as replica:
            replica.execute("select pg_wal_replay_pause()")
            try:
                await store(client, meter())
                await until_told(client, "behind")
                before = asked("behind")
                assert len((await get(client, "/v1/analytics/meters/states"))["meters"]) == 1
                assert asked("behind") == before + 1
                async with asyncio.timeout(PATIENCE_S):
                    while 'fleetwatt_replica_state{state="behind"} 1.0' not in (
                        metrics := (await client.get("/metrics")).text
                    ):
                        await asyncio.sleep(0.1)
                assert 'fleetwatt_replica_state{state="ok"} 0.0' in metrics
                assert (REGISTRY.get_sample_value("fleetwatt_replica_lag_seconds") or 0) > 2.0
            finally:
                replica.execute("select pg_wal_replay_resume()")
        await until_told(client, "ok")
        before = asked("answered")
        assert len((await get(client, "/v1/analytics/meters/states"))["meters"]) == 1
        assert asked("answered") == before + 1


@pytest.mark.either_edition
async def test_an_idle_primary(settings: Settings) -> None:
    """Where nothing is written for longer than the bound, the replica is not behind."""
    async with well(settings, read_lag_max_s=2.0) as client:
        until = time.monotonic() + 4.0
        while time.monotonic() < until:
            assert (await get(client, READY))["replica"] == "ok"
            await asyncio.sleep(0.2)


@pytest.mark.either_edition
async def test_a_replica_that_is_gone(settings: Settings, pair: Pair) -> None:
    """Killed in the midst of questions: each is answered, at first after a try that fails; it comes back."""
    async with well(settings) as client:
        await store(client, meter())
        pair.caught_up()
        stop = asyncio.Event()

        async def go_on_asking() -> int:
            times = 0
            while not stop.is_set():
                assert len((await get(client, "/v1/analytics/meters/states"))["meters"]) == 1
                times += 1
            return times

        asking = [asyncio.create_task(go_on_asking()) for _ in range(4)]
        failed = asked("failed") + asked("away")
        await asyncio.sleep(0.3)
        await asyncio.to_thread(pair.replica.kill)
        await until_told(client, "away")
        await asyncio.sleep(0.3)
        await asyncio.to_thread(pair.replica.start)
        await until_told(client, "ok")
        before = asked("answered")
        async with asyncio.timeout(PATIENCE_S):
            while asked("answered") < before + 10:
                await asyncio.sleep(0.05)
        stop.set()
        assert all(await asyncio.gather(*asking))
        assert asked("failed") + asked("away") > failed


@pytest.mark.either_edition
async def test_a_frozen_replica(settings: Settings, pair: Pair) -> None:
    """One that stands still while it is asked is given up as soon as that is known, not after 40 s."""
    async with well(settings) as client:
        await store(client, meter())
        pair.caught_up()
        await get(client, "/v1/analytics/meters/states")
        with pair.replica.frozen():
            async with asyncio.timeout(PATIENCE_S):
                answers = await asyncio.gather(
                    *(get(client, "/v1/analytics/meters/states") for _ in range(20))
                )
            assert all(len(told["meters"]) == 1 for told in answers)
            assert (await get(client, READY))["replica"] == "away"
        await until_told(client, "ok")


@pytest.mark.either_edition
async def test_a_server_of_another_database(
    settings: Settings, postgres: Postgres, running_servers: dict[str, Postgres], edition: str
) -> None:
    """An address that leads to another server, or to another database there, is never asked for anything."""
    with running_servers[edition].database() as other, postgres.database() as beside:
        elsewhere = running_servers[edition].url("fleetwatt_service", other)
        for minute, url in enumerate((elsewhere, postgres.url("fleetwatt_service", beside))):
            async with serving(settings, read_database_url=url) as client:
                await until_told(client, "foreign")
                await store(client, meter(minute=minute))
                [state] = (await get(client, "/v1/analytics/meters/states"))["meters"]
                assert state["timestamp"] == rfc3339(at(minute))


@pytest.mark.either_edition
async def test_the_primary_as_its_own_replica(settings: Settings) -> None:
    """An address that leads to the primary itself, as where no replica is left, is as good as a replica."""
    async with well(settings, read_database_url=settings.database_url) as client:
        await store(client, meter())
        before = asked("answered")
        assert len((await get(client, "/v1/analytics/meters/states"))["meters"]) == 1
        assert asked("answered") == before + 1

"""The loop that keeps dead letters within bounds: when it prunes, the room they take, what it tells."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import psycopg
import pytest
from prometheus_client import REGISTRY

from service.maintenance.dead_letters import DeadLetterBounds
from service.settings import Settings
from tests.support.letters import keep
from tests.support.mqtt import worker_process
from tests.support.servers import Postgres
from tests.support.strategies import Owner, rows, serving

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

MIB = 1024 * 1024
LONG_AGO = datetime.now(UTC) - timedelta(days=100)


async def flood(owner: Owner, letters: int, size: int = 256 * 1024) -> None:
    """Put letters of random bytes into the table, which no compression makes smaller."""
    await owner.execute(
        "insert into dead_letter (origin, code, message, raw, raw_size) "
        "select 'mqtt:x', 'malformed_json', 'm', seed, length(seed) from generate_series(1, %s) as n, "
        "lateral (select substring(decode(string_agg(md5(random()::text || n || i), ''), 'hex') for %s) "
        "as seed from generate_series(1, %s / 16 + 1) as i) as made",
        (letters, size, size),
    )


async def count(owner: Owner) -> int:
    """Count the letters."""
    [row] = await rows(owner, "select count(*) as n from dead_letter")
    number: int = row["n"]
    return number


@asynccontextmanager
async def looking(settings: Settings, most: int = 1024 * MIB) -> AsyncIterator[DeadLetterBounds]:
    """Give the loop's looks, to be taken by hand, with a bound of so many bytes."""
    bounds = DeadLetterBounds(msgspec.structs.replace(settings, dead_letter_max_total_bytes=most))
    try:
        yield bounds
    finally:
        await bounds.close()


def told(name: str) -> float:
    """Give a metric of this process."""
    value = REGISTRY.get_sample_value(name)
    assert value is not None
    return value


async def test_a_turn(settings: Settings, owner: Owner) -> None:
    """What is too old goes, and the metrics tell how many went, how many wait, and what they take."""
    await keep(owner, {}, received_at=LONG_AGO)
    kept = await keep(owner, {})
    await keep(owner, {})
    await owner.execute("update dead_letter set resolved_at = now() where dead_letter_id > %s", (kept,))
    before = told("fleetwatt_dead_letters_pruned_total")
    async with looking(settings) as bounds:
        await bounds.look()
    assert await count(owner) == 2
    assert told("fleetwatt_dead_letters_pruned_total") - before == 1
    assert told("fleetwatt_dead_letters_waiting") == 1
    assert told("fleetwatt_dead_letter_disk_bytes") > 8192


async def test_a_flood_calls_for_an_early_turn(settings: Settings, owner: Owner) -> None:
    """A look prunes when much has come since the last turn, and leaves it when little has."""
    async with looking(settings, 4 * MIB) as bounds:
        await flood(owner, 15)
        await bounds.look()
        assert await count(owner) == 15
        await flood(owner, 1)
        await bounds.look()
        # Over the bound, but for that alone no turn comes before its time.
        assert await count(owner) == 16
        await flood(owner, 2)
        await bounds.look()
        assert await count(owner) == 15


async def test_a_flood_takes_no_more_room_than_some_turns(settings: Settings, owner: Owner) -> None:
    """Pruned room is used again: what letters take on disk does not grow with the length of a flood."""
    async with looking(settings, 4 * MIB) as bounds:
        for _ in range(15):
            await flood(owner, 24)
            await bounds.look()
            assert await count(owner) <= 16
    assert told("fleetwatt_dead_letter_disk_bytes") < 20 * MIB


async def tiny(owner: Owner, letters: int) -> None:
    """Put the smallest letters into the table."""
    await owner.execute(
        "insert into dead_letter (origin, code, message, raw, raw_size) "
        "select 'http:/v1/telemetry', 'missing', '\"meterId\" is missing', '{}', 2 "
        "from generate_series(1, %s)",
        (letters,),
    )


async def test_a_flood_of_tiny_letters(settings: Settings, owner: Owner) -> None:
    """Hundreds of thousands go at once, and the room on disk does not grow with the length of the flood."""
    async with looking(settings, 32 * MIB) as bounds, asyncio.timeout(50):
        for _ in range(4):
            await tiny(owner, 150_000)
            before = told("fleetwatt_dead_letters_pruned_total")
            await bounds.look()
            assert await count(owner) == 32 * MIB // 502
            assert told("fleetwatt_dead_letters_pruned_total") - before > 80_000
            assert told("fleetwatt_dead_letter_disk_bytes") < 150_000 * 502 + 32 * MIB


async def test_one_connection_is_kept(settings: Settings, owner: Owner, postgres: Postgres) -> None:
    """Looks use one connection; one that broke is replaced by the next look."""
    pids = (
        "select pid from pg_stat_activity where application_name = 'fleetwatt dead letters' "
        "and datname = current_database()"
    )
    async with looking(settings) as bounds:
        await bounds.look()
        [first] = await rows(owner, pids)
        await bounds.look()
        assert await rows(owner, pids) == [first]
        with postgres.admin() as admin:
            admin.execute("select pg_terminate_backend(%s, 5000)", (first["pid"],))
        with pytest.raises(psycopg.OperationalError):
            await bounds.look()
        await bounds.look()
        [second] = await rows(owner, pids)
        assert second != first
    async with asyncio.timeout(20):
        while await rows(owner, pids):
            await asyncio.sleep(0.05)


async def test_two_processes(settings: Settings, owner: Owner) -> None:
    """Looks of two processes at once delete no more than one would."""
    await flood(owner, 100)
    async with AsyncExitStack() as stack:
        several = [await stack.enter_async_context(looking(settings, 4 * MIB)) for _ in range(4)]
        await asyncio.gather(*(bounds.look() for bounds in several))
    async with looking(settings, 4 * MIB) as bounds:
        await bounds.look()
    assert await count(owner) == 4 * MIB // (256 * 1024 + 500)


async def test_without_a_database(settings: Settings) -> None:
    """The loop tells its caller, which logs it and tries again."""
    away = msgspec.structs.replace(settings, database_url="postgresql://127.0.0.1:1/none")
    with pytest.raises(psycopg.OperationalError):
        await DeadLetterBounds(away).look()


async def gone(owner: Owner) -> None:
    """Wait until there are no letters."""
    async with asyncio.timeout(30):
        while await count(owner):
            await asyncio.sleep(0.05)


async def test_the_http_service_runs_it(settings: Settings, owner: Owner) -> None:
    """The loop is part of `fleetwatt serve`."""
    await keep(owner, {}, received_at=LONG_AGO)
    async with serving(settings):
        await gone(owner)


async def test_the_worker_runs_it(mqtt_settings: Settings, ready: socket.socket, owner: Owner) -> None:
    """The loop is part of `fleetwatt worker`."""
    await keep(owner, {}, received_at=LONG_AGO)
    async with worker_process(mqtt_settings, ready):
        await gone(owner)

"""In whichever way a batch goes, it takes its locks in one order: two writers never wait in a circle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import psycopg
import pytest
from psycopg import AsyncConnection

from service.ingest import transaction
from service.ingest.pipeline import Pipeline
from service.readings import Reading
from service.settings import Settings
from tests.support.strategies import Owner, decoded, meter, rows, vehicle

pytestmark = pytest.mark.anyio

_WRITER_WAITS: Final = (
    "select l.locktype from pg_locks as l join pg_stat_activity as a using (pid) "
    "where a.datname = current_database() and a.application_name = 'fleetwatt write' and not l.granted"
)
_METER: Final = "meter_state where meter_id = 'm-1'"
_VEHICLE: Final = "vehicle_state where vehicle_id = 'v-1'"


@pytest.fixture
async def gate(settings: Settings) -> AsyncIterator[AsyncConnection[Any]]:
    """Connect as the owner, to hold a lock for a while."""
    async with await AsyncConnection.connect(settings.migrate_database_url) as connection:
        yield connection


@pytest.fixture(params=["few", "copy", "careful"])
async def writer(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> AsyncIterator[Pipeline]:
    """Give a writer that knows a meter and a vehicle, and whose batches go one of the ways there are."""
    if request.param == "copy":
        monkeypatch.setattr(transaction, "_FEW", 0)
    async with Pipeline(msgspec.structs.replace(settings, writers=1), "test") as pipeline:
        for _ in range(2 if request.param == "careful" else 1):
            await pipeline.submit(decoded(meter(), vehicle()), "test")
        yield pipeline


async def until_waiting(owner: Owner, kind: str) -> None:
    """Wait until the writer waits for a lock of a kind."""
    while [row["locktype"] for row in await rows(owner, _WRITER_WAITS)] != [kind]:
        await asyncio.sleep(0.005)


async def is_free(owner: Owner, row: str) -> bool:
    """Tell whether nobody holds a row."""
    try:
        await rows(owner, f"select from {row} for update nowait")
    except psycopg.errors.LockNotAvailable:
        return False
    return True


async def test_meters_come_before_vehicles(
    writer: Pipeline, owner: Owner, gate: AsyncConnection[Any]
) -> None:
    """Whoever waits for a meter holds no vehicle."""
    for number, (shut, other, free) in enumerate([(_METER, _VEHICLE, True), (_VEHICLE, _METER, False)], 1):
        await gate.execute(f"select from {shut} for update".encode())
        sent = asyncio.create_task(
            writer.submit(decoded(vehicle(minute=number), meter(minute=number)), "test")
        )
        await until_waiting(owner, "transactionid")
        assert await is_free(owner, other) == free
        await gate.rollback()
        assert (await sent).accepted == 2


async def test_the_barrier_comes_before_the_state(
    writer: Pipeline, owner: Owner, gate: AsyncConnection[Any]
) -> None:
    """Whoever waits for the refresh holds nothing that a writer which the refresh waits for may want."""
    readings: list[Reading] = [meter(minute=1), vehicle(minute=1)]
    for number, reading in enumerate(readings):
        await gate.execute("select pg_advisory_xact_lock(1718383735, 1)")
        sent = asyncio.create_task(writer.submit(decoded(reading), "test"))
        await until_waiting(owner, "advisory")
        assert await is_free(owner, (_METER, _VEHICLE)[number])
        await gate.rollback()
        assert (await sent).accepted == 1

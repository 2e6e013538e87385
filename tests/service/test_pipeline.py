"""The pipeline against a real database: what a commit did, and what is in the tables after it."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import AsyncConnection, errors

from service.errors import AtomicRefusedError, DatabaseUnavailableError
from service.ingest.batch import DAYS_MAX
from service.ingest.outcome import Decoded
from service.ingest.pipeline import Pipeline
from service.readings import MeterReading, Reading, VehicleReading
from service.settings import Settings
from tests.support.servers import Postgres

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
Owner = AsyncConnection[dict[str, Any]]
BROKEN = (
    b"create function broken() returns trigger language plpgsql as $$ begin "
    b"if new.meter_id like 'm-broken%' then raise exception 'boom' using errcode = 'XX000'; end if; "
    b"return new; end $$"
)
BREAK = b"create trigger broken before insert on meter_reading for each row execute function broken()"


def meter(device_id: str = "m-1", minute: int = 0, kwh: float = 0.1, voltage: float = 230.0) -> MeterReading:
    """Make a meter reading."""
    return MeterReading(device_id, NOW + timedelta(minutes=minute), kwh, voltage)


def vehicle(device_id: str = "v-1", minute: int = 0, kwh: float = 0.1) -> VehicleReading:
    """Make a vehicle reading."""
    return VehicleReading(device_id, NOW + timedelta(minutes=minute), 50.0, kwh, 25.0)


def payload(*readings: Reading) -> Decoded:
    """Make the payload that decoding would have given."""
    body = msgspec.json.encode(readings)
    return Decoded(body=body, readings=list(readings), indices=list(range(len(readings))), rejections=[])


async def rows(owner: Owner, statement: str) -> list[dict[str, Any]]:
    """Run a query of the test."""
    return await (await owner.execute(statement.encode())).fetchall()


async def test_both_kinds_in_one_payload(pipeline: Pipeline, owner: Owner) -> None:
    """A mixed payload fills both histories and both hot states."""
    outcome = await pipeline.submit(payload(meter(), vehicle(), meter(minute=1)), "test")
    assert (outcome.accepted, outcome.duplicates, outcome.rejections) == (3, 0, [])
    assert len(await rows(owner, "select * from meter_reading")) == 2
    assert len(await rows(owner, "select * from vehicle_reading")) == 1
    [state] = await rows(owner, "select * from meter_state")
    assert state["recorded_at"] == NOW + timedelta(minutes=1)


async def test_repeat_is_a_duplicate(pipeline: Pipeline, owner: Owner) -> None:
    """The same reading again is counted and not stored, within a payload and across payloads."""
    first = await pipeline.submit(payload(meter(), meter()), "test")
    second = await pipeline.submit(payload(meter(), meter(minute=1)), "test")
    assert (first.accepted, first.duplicates) == (1, 1)
    assert (second.accepted, second.duplicates) == (1, 1)
    assert len(await rows(owner, "select * from meter_reading")) == 2
    assert await rows(owner, "select * from dead_letter") == []


async def test_conflict_keeps_the_first(pipeline: Pipeline, owner: Owner) -> None:
    """Other values under a stored key become a dead letter with the reading's own bytes; the first stays."""
    await pipeline.submit(payload(meter(kwh=0.1)), "test")
    outcome = await pipeline.submit(payload(meter(minute=1), meter(kwh=0.2)), "mqtt:telemetry/meter/m-1")
    assert (outcome.accepted, outcome.duplicates) == (1, 0)
    [rejection] = outcome.rejections
    assert (rejection.index, rejection.code, rejection.device_id) == (1, "conflict", "m-1")
    [letter] = await rows(owner, "select * from dead_letter")
    assert msgspec.json.decode(letter["raw"], type=MeterReading) == meter(kwh=0.2)
    assert letter["origin"] == "mqtt:telemetry/meter/m-1"
    kept, _ = await rows(owner, "select * from meter_reading order by recorded_at")
    assert kept["kwh_consumed_ac"] == 0.1


async def test_repeat_in_one_payload_is_held_against_what_is_stored(pipeline: Pipeline) -> None:
    """Of two values under one key in a payload, the one that is stored already is the duplicate."""
    await pipeline.submit(payload(meter(kwh=0.2)), "test")
    outcome = await pipeline.submit(payload(meter(kwh=0.1), meter(kwh=0.2)), "test")
    assert (outcome.accepted, outcome.duplicates, [r.index for r in outcome.rejections]) == (0, 1, [0])


async def test_late_reading_leaves_the_hot_state(pipeline: Pipeline, owner: Owner) -> None:
    """A late reading is stored but never overwrites a newer state."""
    await pipeline.submit(payload(vehicle(minute=5)), "test")
    await pipeline.submit(payload(vehicle(minute=1, kwh=0.9)), "test")
    [state] = await rows(owner, "select * from vehicle_state")
    assert (state["recorded_at"], state["kwh_delivered_dc"]) == (NOW + timedelta(minutes=5), 0.1)
    assert len(await rows(owner, "select * from vehicle_reading")) == 2


async def test_atomic_stores_all_or_nothing(pipeline: Pipeline, owner: Owner) -> None:
    """One conflict in an all-or-nothing payload leaves no trace of it."""
    await pipeline.submit(payload(meter(kwh=0.1)), "test")
    with pytest.raises(AtomicRefusedError) as refused:
        await pipeline.submit(payload(meter(minute=1), meter(kwh=0.2)), "test", atomic=True)
    assert refused.value.conflicts == [1]
    assert len(await rows(owner, "select * from meter_reading")) == 1
    assert await rows(owner, "select * from dead_letter") == []


async def test_a_reading_that_the_database_refuses_sinks_nothing_else(
    pipeline: Pipeline, owner: Owner
) -> None:
    """A check constraint stands in for anything the types let pass: the one row goes to the dead letters."""
    bad = meter(minute=3, voltage=5000.0)
    good = [meter(minute=minute) for minute in range(20) if minute != 3]
    outcome = await pipeline.submit(payload(*good[:7], bad, *good[7:]), "test")
    assert outcome.accepted == 19
    assert [(r.index, r.code) for r in outcome.rejections] == [(7, "database_refused")]
    assert len(await rows(owner, "select * from meter_reading")) == 19
    [letter] = await rows(owner, "select * from dead_letter")
    assert (letter["code"], letter["device_id"]) == ("database_refused", "m-1")


async def test_counters_equal_the_tables(pipeline: Pipeline, owner: Owner) -> None:
    """The ingest counters are exact: they are written in the transaction that stores the readings."""
    for minute in range(5):
        await pipeline.submit(
            payload(meter(minute=minute), meter(minute=minute), vehicle(minute=minute)), "test"
        )
    [counted] = await rows(owner, "select sum(accepted) as a, sum(duplicates) as d from ingest_minute")
    assert (int(counted["a"]), int(counted["d"])) == (10, 5)


async def terminate_writers(postgres: Postgres, database: str) -> None:
    """End the writers' connections as a failover would."""
    with postgres.admin() as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = %s and application_name = 'fleetwatt write'",
            (database,),
        )


async def test_available_again_however_the_next_transaction_ends(
    pipeline: Pipeline, postgres: Postgres, database: str
) -> None:
    """After an outage even a refused submission proves that the database is back."""
    await pipeline.submit(payload(meter(kwh=0.1)), "test")
    await terminate_writers(postgres, database)
    with pytest.raises(AtomicRefusedError):
        await pipeline.submit(payload(meter(kwh=0.2)), "test", atomic=True)
    assert pipeline.available


async def test_a_read_only_database_refuses_no_reading(
    pipeline: Pipeline, owner: Owner, postgres: Postgres, database: str
) -> None:
    """A database that cannot be written for a while (failover, maintenance) is waited for."""
    await pipeline.submit(payload(meter()), "test")
    with postgres.admin() as connection:
        connection.execute(f"alter database {database} set default_transaction_read_only = on".encode())
        await terminate_writers(postgres, database)
        waiting = asyncio.create_task(pipeline.submit(payload(meter(minute=1), vehicle()), "test"))
        while pipeline.available:
            await asyncio.sleep(0.01)
        connection.execute(f"alter database {database} set default_transaction_read_only = off".encode())
    outcome = await waiting
    assert (outcome.accepted, outcome.rejections) == (2, [])
    assert await rows(owner, "select * from dead_letter") == []


async def test_many_days_in_one_payload(pipeline: Pipeline, owner: Owner) -> None:
    """Old readings of hundreds of days are cut into transactions that the lock table can hold."""
    readings = [meter(minute=-1440 * day) for day in range(DAYS_MAX + 30)]
    outcome = await pipeline.submit(payload(*readings, readings[0], meter(kwh=0.5)), "test")
    assert (outcome.accepted, outcome.duplicates, len(outcome.rejections)) == (DAYS_MAX + 30, 1, 1)
    [counted] = await rows(owner, "select count(*) as n from meter_reading")
    assert counted["n"] == DAYS_MAX + 30


async def test_many_conflicts_in_one_payload(pipeline: Pipeline, owner: Owner) -> None:
    """A whole payload of conflicts is told reading by reading, each with its own bytes."""
    first = [meter(device_id=f"m-{number}") for number in range(10_000)]
    second = [meter(device_id=f"m-{number}", kwh=0.2) for number in range(10_000)]
    await pipeline.submit(payload(*first), "test")
    outcome = await pipeline.submit(payload(*second), "test")
    assert (outcome.accepted, outcome.duplicates, len(outcome.rejections)) == (0, 0, 10_000)
    for letter in await rows(owner, "select device_id, raw from dead_letter limit 100"):
        assert msgspec.json.decode(letter["raw"], type=MeterReading).device_id == letter["device_id"]


async def test_a_defect_does_not_hold_up_the_stream(pipeline: Pipeline, owner: Owner) -> None:
    """An error that nobody foresaw fails its own submission after a few tries; the next one is stored."""
    await owner.execute(BROKEN)
    await owner.execute(BREAK)
    with pytest.raises(errors.InternalError_):
        await pipeline.submit(payload(meter("m-broken")), "test")
    outcome = await pipeline.submit(payload(meter("m-good")), "test")
    assert outcome.accepted == 1
    assert pipeline.available
    assert await rows(owner, "select * from dead_letter") == []


async def test_a_reading_that_meets_a_defect_alone_is_set_aside(pipeline: Pipeline, owner: Owner) -> None:
    """Where others get through, the one that does not is to blame: kept with its bytes, and acknowledged."""
    await owner.execute(BROKEN)
    await owner.execute(BREAK)
    good = [meter(minute=minute) for minute in range(9)]
    outcome = await pipeline.submit(payload(*good[:4], meter("m-broken"), *good[4:]), "test")
    assert outcome.accepted == 9
    assert [(r.index, r.code) for r in outcome.rejections] == [(4, "database_refused")]
    [letter] = await rows(owner, "select * from dead_letter")
    assert msgspec.json.decode(letter["raw"], type=MeterReading) == meter("m-broken")


async def test_a_defect_that_all_meet_is_nobodys_fault(pipeline: Pipeline, owner: Owner) -> None:
    """When nothing gets through, no reading is blamed: nothing is acknowledged, nothing set aside."""
    await owner.execute(BROKEN)
    await owner.execute(BREAK)
    broken = [meter(f"m-broken-{number}") for number in range(8)]
    with pytest.raises(errors.InternalError_):
        await pipeline.submit(payload(*broken), "test")
    assert await rows(owner, "select * from dead_letter") == []
    assert pipeline.available


async def test_what_was_given_up_is_not_written(settings: Settings, owner: Owner) -> None:
    """A sender that was told to send again will do so: what it sent first need not be stored as well."""
    one = msgspec.structs.replace(settings, writers=1)
    async with Pipeline(one, "test") as pipeline:
        async with owner.transaction():
            await owner.execute("lock table meter_reading in access exclusive mode")
            first = asyncio.create_task(pipeline.submit(payload(meter()), "test"))
            await asyncio.sleep(0.1)
            with pytest.raises(DatabaseUnavailableError):
                await pipeline.submit(payload(meter(minute=1)), "test", commit_wait_s=0.05)
        await first
        await pipeline.submit(payload(meter(minute=2)), "test")
        assert pipeline.buffer.readings == pipeline.buffer.bytes == 0
    stored = await rows(owner, "select recorded_at from meter_reading order by recorded_at")
    assert [row["recorded_at"] for row in stored] == [NOW, NOW + timedelta(minutes=2)]


async def test_a_frozen_server_does_not_hold_up_the_end(settings: Settings) -> None:
    """A server that takes the connection and never answers is given up when the process must stop."""

    async def never(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)
        writer.close()

    async with await asyncio.start_server(never, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        frozen = msgspec.structs.replace(
            settings,
            database_url=psycopg.conninfo.make_conninfo(settings.database_url, port=port),
            drain_timeout_s=0.2,
            breaker_stall_s=0.1,
        )
        async with asyncio.timeout(20):
            async with Pipeline(frozen, "test") as pipeline:
                with pytest.raises(DatabaseUnavailableError):
                    await pipeline.submit(payload(meter()), "test", commit_wait_s=0.3)
                assert not pipeline.available


async def test_a_transaction_that_lasts_too_long_is_tried_anew(settings: Settings, owner: Owner) -> None:
    """A server that stopped answering in the middle is left for a new connection, and nothing is lost."""
    impatient = msgspec.structs.replace(settings, write_timeout_s=0.5, writers=1)
    async with Pipeline(impatient, "test") as pipeline, asyncio.timeout(40):
        await pipeline.submit(payload(meter()), "test")
        async with owner.transaction():
            await owner.execute("lock table meter_reading in access exclusive mode")
            waiting = asyncio.create_task(pipeline.submit(payload(meter(minute=1)), "test"))
            while pipeline.available:
                await asyncio.sleep(0.05)
        assert (await waiting).accepted == 1
    assert len(await rows(owner, "select * from meter_reading")) == 2

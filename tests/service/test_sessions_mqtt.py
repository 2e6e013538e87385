"""Sessions over MQTT through a real broker: acknowledged after the commit, and in any order."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import psycopg
import pytest

from service import db
from service.ingest.mqtt import Consumer
from service.ingest.pipeline import Pipeline
from service.sessions.messages import TOPIC, SessionMessages
from service.settings import Settings
from tests.support.mqtt import (
    LETTERS,
    METER,
    METERS,
    PATIENCE_S,
    eventually,
    publish,
    publish_raw,
    until_ready,
    worker_process,
)
from tests.support.servers import Postgres
from tests.support.strategies import Owner, at, encode, meter, rfc3339, rows

pytestmark = pytest.mark.anyio

STORED: Final = "select count(*) as n from charging_session"
ENDED: Final = "select count(*) as n from charging_session where not upper_inf(during)"
WAITING: Final = "select count(*) as n from session_message where ended_session is null"
# Other work of a worker may wait for the table as well.
BLOCKED: Final = (
    "select a.pid from pg_stat_activity as a join pg_locks as l on a.pid = l.pid "
    "where not l.granted and a.query like '%%take_session_message%%' and a.datname = %s"
)


def start(minute: float, vehicle: str = "v-1", **more: Any) -> bytes:
    """Make the start of a session."""
    return msgspec.json.encode({"vehicleId": vehicle, "startedAt": rfc3339(at(minute)), **more})


def end(minute: float, **more: Any) -> bytes:
    """Make the end of a session."""
    return msgspec.json.encode({"endedAt": rfc3339(at(minute)), **more})


@asynccontextmanager
async def consuming(settings: Settings, ready: socket.socket) -> AsyncIterator[None]:
    """Run a consumer of readings and sessions that has subscribed; at the end it drains."""
    stop = asyncio.Event()
    async with db.read_pool(settings) as pool, Pipeline(settings, "test") as pipeline:
        handlers = {TOPIC: SessionMessages(settings, pool).take}
        consumer = asyncio.create_task(Consumer(settings, pipeline, handlers).run(stop))
        await until_ready(ready)
        try:
            yield
        finally:
            stop.set()
            await consumer


async def spans(owner: Owner) -> list[tuple[str, str, float, float | None]]:
    """Give the sessions as (meter, vehicle, start, end), times in minutes."""
    found = await rows(
        owner,
        "select meter_id, vehicle_id, lower(during) as s, upper(during) as e "
        "from charging_session order by meter_id, during",
    )
    return [
        (
            row["meter_id"],
            row["vehicle_id"],
            (row["s"] - at(0)).total_seconds() / 60,
            None if row["e"] is None else (row["e"] - at(0)).total_seconds() / 60,
        )
        for row in found
    ]


async def test_sessions_beside_readings(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """One worker takes both: sessions become sessions, readings readings, and neither disturbs the other."""
    async with worker_process(mqtt_settings, ready):
        await publish(broker_port, "sessions/m-1", start(0), end(30), start(30, "v-2"))
        await publish(broker_port, METER + "m-1", encode(meter(minute=10)))
        await publish(broker_port, "sessions/m-2", start(5, endedAt=rfc3339(at(6)), sessionId="s-1"))
        await eventually(owner, STORED, 3)
        await eventually(owner, ENDED, 2)
        await eventually(owner, METERS, 1)
    assert await spans(owner) == [("m-1", "v-1", 0, 30), ("m-1", "v-2", 30, None), ("m-2", "v-1", 5, 6)]


async def test_bad_messages_are_kept_and_acknowledged(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """What cannot be used is a dead letter with topic, bytes and reason; it does not come again."""
    bad = {
        b" ": "empty_body",
        b"\xff\x00\n\xfe": "malformed_json",
        b"[]": "wrong_shape",
        start(0, meterId="m-2"): "id_mismatch",
        start(0, vehicle="a b"): "bad_id",
    }
    async with consuming(mqtt_settings, ready):
        for payload in bad:
            await publish_raw(broker_port, "sessions/m-1", payload)
        await publish(broker_port, "sessions/m 1", start(0))
        # Not about sessions at all, so nobody asked for it.
        await publish(broker_port, "sessions/m-1/more", start(0))
        await eventually(owner, LETTERS, len(bad) + 1)
    letters = await rows(owner, "select * from dead_letter order by dead_letter_id")
    assert {bytes(row["raw"]): row["code"] for row in letters[:-1]} == bad
    assert {(row["origin"], row["device_id"], row["kind"]) for row in letters[:-1]} == {
        ("mqtt:sessions/m-1", "m-1", None)
    }
    assert (letters[-1]["origin"], letters[-1]["code"]) == ("mqtt:sessions/m 1", "unknown_topic")
    async with consuming(mqtt_settings, ready):
        await publish(broker_port, "sessions/m-1", start(0))
        await eventually(owner, STORED, 1)
    assert await rows(owner, LETTERS) == [{"n": len(bad) + 1}]


async def test_an_end_before_its_start(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """An end that comes first is acknowledged, waits in the database over a restart, and finds its start."""
    async with consuming(mqtt_settings, ready):
        await publish(broker_port, "sessions/m-1", end(30))
        await eventually(owner, WAITING, 1)
    async with consuming(mqtt_settings, ready):
        await publish(broker_port, "sessions/m-1", start(0))
        await eventually(owner, ENDED, 1)
    assert await spans(owner) == [("m-1", "v-1", 0, 30)]
    assert await rows(owner, WAITING) == [{"n": 0}]


async def test_two_workers_share_the_messages_of_a_meter(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """Dealt to two workers, a meter's starts and ends are handled in any order, and come out right."""
    other = msgspec.structs.replace(mqtt_settings, mqtt_client_id=f"{mqtt_settings.mqtt_client_id}-b")
    sent = [each for n in range(20) for each in (start(10 * n, f"v-{n}"), end(10 * n + 10))]
    async with consuming(mqtt_settings, ready), consuming(other, ready):
        await publish(broker_port, "sessions/m-1", *sent)
        await eventually(owner, ENDED, 20)
    assert await spans(owner) == [("m-1", f"v-{n}", 10 * n, 10 * n + 10) for n in range(20)]
    assert await rows(owner, WAITING) == [{"n": 0}]
    assert await rows(owner, LETTERS) == [{"n": 0}]


async def test_a_worker_that_was_away_has_old_messages(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """What the broker dealt to an absent worker comes late, and the sessions are put right then."""
    other = msgspec.structs.replace(mqtt_settings, mqtt_client_id=f"{mqtt_settings.mqtt_client_id}-b")
    async with consuming(other, ready):
        pass
    sent = [each for n in range(9) for each in (start(10 * n, f"v-{n}"), end(10 * n + 9))]
    async with consuming(mqtt_settings, ready):
        await publish(broker_port, "sessions/m-1", *sent)
        # Readings on topics of their own tell when this worker has had its share.
        await publish(broker_port, METER + "m-1", *[encode(meter(minute=n)) for n in range(4)])
        await eventually(owner, "select least(count(*), 1)::int as n from meter_reading", 1)
    async with consuming(other, ready):
        await eventually(owner, ENDED, 9)
    assert await spans(owner) == [("m-1", f"v-{n}", 10 * n, 10 * n + 9) for n in range(9)]
    assert await rows(owner, LETTERS) == [{"n": 0}]


async def until_blocked(postgres: Postgres, database: str) -> int:
    """Wait until a message is held up by a lock; give the process that handles it."""
    async with asyncio.timeout(PATIENCE_S):
        with postgres.admin() as admin:
            while not (found := admin.execute(BLOCKED, (database,)).fetchone()):
                await asyncio.sleep(0.02)
    [pid] = found
    assert isinstance(pid, int)
    return pid


@pytest.mark.parametrize("committed", [False, True], ids=["before-the-commit", "after-the-commit"])
async def test_a_killed_worker_has_acknowledged_nothing(
    mqtt_settings: Settings,
    broker_port: int,
    owner: Owner,
    ready: socket.socket,
    postgres: Postgres,
    database: str,
    committed: bool,
) -> None:
    """Killed before it acknowledged, it leaves its messages to the next worker: stored once either way."""
    async with worker_process(mqtt_settings, ready) as worker, owner.transaction():
        await owner.execute("lock table charging_session in access exclusive mode")
        await publish(broker_port, "sessions/m-1", start(0), end(30))
        handler = await until_blocked(postgres, database)
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        if not committed:
            # Else the statement that is under way goes on without its client.
            with postgres.admin() as admin:
                admin.execute("select pg_terminate_backend(%s, 10000)", (handler,))
    if committed:
        await eventually(owner, STORED, 1)
    else:
        assert await spans(owner) == []
    async with consuming(mqtt_settings, ready):
        await eventually(owner, ENDED, 1)
    # Acknowledged now: the next one gets none of it again, and would change nothing with it.
    async with consuming(mqtt_settings, ready):
        await publish(broker_port, "sessions/m-1", start(0), end(30), start(60))
        await eventually(owner, STORED, 2)
    assert await spans(owner) == [("m-1", "v-1", 0, 30), ("m-1", "v-1", 60, None)]
    trail = await rows(owner, "select action from session_change order by change_id")
    assert [row["action"] for row in trail] == ["started", "ended", "started"]
    assert await rows(owner, LETTERS) == [{"n": 0}]


async def test_the_database_comes_back(
    mqtt_settings: Settings,
    broker_port: int,
    owner: Owner,
    ready: socket.socket,
    postgres: Postgres,
    database: str,
) -> None:
    """While the database lets nobody in nothing is acknowledged or lost; then the message is stored, once."""

    def allow(connections: bool) -> None:
        with postgres.admin() as admin:
            admin.execute(
                psycopg.sql.SQL("alter database {} allow_connections {}").format(
                    psycopg.sql.Identifier(database), psycopg.sql.Literal(connections)
                )
            )
            if not connections:
                admin.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where datname = %s and usename = 'fleetwatt_service'",
                    (database,),
                )

    async with consuming(mqtt_settings, ready):
        await publish(broker_port, "sessions/m-1", start(0))
        await eventually(owner, STORED, 1)
        allow(False)
        await publish(broker_port, "sessions/m-1", end(30))
        await asyncio.sleep(0.5)
        assert await rows(owner, ENDED) == [{"n": 0}]
        allow(True)
        await eventually(owner, ENDED, 1)
    assert await spans(owner) == [("m-1", "v-1", 0, 30)]
    assert await rows(owner, LETTERS) == [{"n": 0}]

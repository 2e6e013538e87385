"""The MQTT consumer on a real broker and database: what is stored, and when it is acknowledged."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import AsyncConnection

from service.ingest.mqtt import BrokerRefusedError, Consumer
from service.ingest.pipeline import Pipeline
from service.settings import Settings
from tests import servers
from tests.servers import Postgres

pytestmark = pytest.mark.anyio

Owner = AsyncConnection[dict[str, Any]]
METER = {"kwhConsumedAc": 0.1, "voltage": 230.0, "timestamp": "2026-01-31T12:00:00Z"}
VEHICLE = {"soc": 50.0, "kwhDeliveredDc": 0.1, "batteryTemp": 20.0, "timestamp": "2026-01-31T12:00:00Z"}


class Publisher:
    """Publishes with Mosquitto's own client; each call returns once the broker has acknowledged."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __call__(self, topic: str, payload: object, *, qos: int = 1, retain: bool = False) -> None:
        """Publish a payload: bytes and text as they are, anything else as JSON."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        program = servers.apache_root() / "usr/bin/mosquitto_pub"
        options = ["-V", "5", "-p", str(self._port), "-q", str(qos), "-t", topic]
        options += ["-s" if body else "-n", *(["-r"] if retain else [])]
        process = await asyncio.create_subprocess_exec(str(program), *options, stdin=asyncio.subprocess.PIPE)
        await process.communicate(body)
        assert process.returncode == 0


@pytest.fixture
def publish(broker_port: int) -> Publisher:
    """Give a publisher on the test's broker."""
    return Publisher(broker_port)


@asynccontextmanager
async def consuming(settings: Settings, *, drain: bool = True) -> AsyncIterator[asyncio.Task[None]]:
    """Run a consumer with its pipeline; without `drain` it vanishes as a killed process would."""
    stop = asyncio.Event()
    async with Pipeline(settings, "mqtt-test") as pipeline:
        consumer = Consumer(settings, pipeline)
        task = asyncio.create_task(consumer.run(stop))
        await asyncio.wait(
            [asyncio.create_task(consumer.connected.wait()), task], timeout=10, return_when="FIRST_COMPLETED"
        )
        try:
            yield task
        finally:
            if drain:
                stop.set()
            else:
                task.cancel()
            with suppress(asyncio.CancelledError, BrokerRefusedError):
                await task


async def wait_for(owner: Owner, statement: str, count: int) -> list[dict[str, Any]]:
    """Wait until a query gives that many rows."""
    for _ in range(200):
        rows = await (await owner.execute(statement.encode())).fetchall()
        if len(rows) >= count:
            break
        await asyncio.sleep(0.05)
    assert len(rows) == count, rows
    return rows


async def test_payload_shapes(mqtt_settings: Settings, publish: Publisher, owner: Owner) -> None:
    """One reading, an array and an envelope are stored, with the id from the topic or equal to it."""
    async with consuming(mqtt_settings):
        await publish("telemetry/meter/m-1", METER)
        await publish(
            "telemetry/meter/m-2",
            [{**METER, "meterId": "m-2"}, {**METER, "timestamp": "2026-01-31T12:01:00Z"}],
        )
        await publish("telemetry/vehicle/v-1", {"readings": [VEHICLE]})
        await wait_for(owner, "select * from meter_reading", 3)
        await wait_for(owner, "select * from vehicle_reading", 1)
    assert await wait_for(owner, "select * from dead_letter", 0) == []


BAD: list[tuple[str, object, str, str | None]] = [
    ("telemetry/meter/m-1", b"{not json", "malformed_json", None),
    ("telemetry/meter/m-1", b"\xff\xfe\x00", "malformed_json", None),
    ("telemetry/meter/m-1", b"", "empty_body", None),
    ("telemetry/meter/m-1", b"[" * 50_000, "too_deep", None),
    ("telemetry/meter/m-1", [1], "wrong_shape", None),
    ("telemetry/meter/m-1", {**METER, "voltage": "230"}, "wrong_type", "voltage"),
    ("telemetry/meter/m-1", b'{"kwhConsumedAc": NaN}', "malformed_json", None),
    ("telemetry/meter/m-1", {**METER, "kwhConsumedAc": -1}, "out_of_range", "kwhConsumedAc"),
    ("telemetry/meter/m-1", {**METER, "timestamp": "2026-01-31T12:00:00"}, "naive_timestamp", "timestamp"),
    ("telemetry/meter/m-1", {**METER, "timestamp": "2199-01-31T12:00:00Z"}, "future_timestamp", "timestamp"),
    ("telemetry/meter/m-1", {**METER, "meterId": "m-2"}, "id_mismatch", "meterId"),
    ("telemetry/vehicle/v-1", METER, "missing", "soc"),
    ("telemetry/vehicle/not ok", VEHICLE, "unknown_topic", "topic"),
    ("telemetry/boat/b-1", METER, "unknown_topic", "topic"),
    ("telemetry/meter/" + "x" * 65, METER, "unknown_topic", "topic"),
]


async def test_bad_payloads_become_dead_letters_and_the_stream_goes_on(
    mqtt_settings: Settings, publish: Publisher, owner: Owner
) -> None:
    """Each is kept with topic, raw bytes and reason, and is acknowledged: none of them comes again."""
    async with consuming(mqtt_settings):
        for topic, payload, _, _ in BAD:
            await publish(topic, payload)
        await publish("telemetry/meter/m-good", METER)
        await wait_for(owner, "select * from meter_reading", 1)
        letters = await wait_for(owner, "select * from dead_letter order by dead_letter_id", len(BAD))
    for letter, (topic, payload, code, field) in zip(letters, BAD, strict=True):
        assert (letter["origin"], letter["code"], letter["field"]) == (f"mqtt:{topic}", code, field)
        if isinstance(payload, bytes):
            assert (letter["raw"], letter["raw_size"]) == (payload, len(payload))
    async with consuming(mqtt_settings):
        await publish("telemetry/meter/m-good", METER)
        await wait_for(owner, "select * from ingest_minute where duplicates > 0", 1)
    await wait_for(owner, "select * from dead_letter", len(BAD))


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_publishers_of_any_quality(
    mqtt_settings: Settings, publish: Publisher, owner: Owner, qos: int
) -> None:
    """A publisher at QoS 0 or 2 is served too, and a retained message does no harm."""
    async with consuming(mqtt_settings):
        await publish("telemetry/meter/m-qos", METER, qos=qos, retain=qos == 2)
        await wait_for(owner, "select * from meter_reading", 1)
        if qos == 2:
            await publish("telemetry/meter/m-qos", b"", retain=True)


async def test_messages_wait_for_an_absent_worker(
    mqtt_settings: Settings, publish: Publisher, owner: Owner
) -> None:
    """What is published while the worker is away arrives when it is back: the session is persistent."""
    async with consuming(mqtt_settings):
        pass
    for minute in range(10):
        await publish("telemetry/meter/m-1", {**METER, "timestamp": f"2026-01-31T12:{minute:02}:00Z"})
    assert await wait_for(owner, "select * from meter_reading", 0) == []
    async with consuming(mqtt_settings):
        await wait_for(owner, "select * from meter_reading", 10)


async def test_nothing_is_acknowledged_before_its_commit(
    mqtt_settings: Settings, publish: Publisher, owner: Owner, postgres: Postgres, database: str
) -> None:
    """A worker that vanishes in a transaction has acknowledged nothing: the message comes again."""
    hasty = msgspec.structs.replace(mqtt_settings, drain_timeout_s=0.1)
    url = postgres.url("postgres", database)
    async with await psycopg.AsyncConnection.connect(url) as blocker:
        await blocker.execute("lock table meter_reading in share mode")
        async with consuming(hasty, drain=False):
            await publish("telemetry/meter/m-1", METER)
            waiting = "select * from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as eye:
                for _ in range(200):
                    if await (await eye.execute(waiting)).fetchall():
                        break
                    await asyncio.sleep(0.05)
                else:
                    raise AssertionError("the writer never waited for the lock")
        await blocker.rollback()
    async with consuming(mqtt_settings):
        await wait_for(owner, "select * from meter_reading", 1)
    async with consuming(mqtt_settings):
        await asyncio.sleep(0.2)
    [counted] = await (
        await owner.execute("select sum(accepted) as a, sum(duplicates) as d from ingest_minute")
    ).fetchall()
    assert int(counted["a"]) == 1


async def test_refused_credentials_end_the_worker(mqtt_settings: Settings) -> None:
    """A broker that does not know us is a clear error, not an endless loop."""
    with servers.scratch_dir() as folder:
        port = servers.free_port()
        (folder / "broker.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous false\n")
        command = [str(servers.apache_root() / "usr/sbin/mosquitto"), "-c", str(folder / "broker.conf")]
        (folder / "broker.conf").chmod(0o644)
        with servers.process(command, folder / "log", signal.SIGTERM):
            await asyncio.sleep(0.5)
            refused = msgspec.structs.replace(
                mqtt_settings, mqtt_url=f"mqtt://someone:wrong@127.0.0.1:{port}"
            )
            async with Pipeline(refused, "mqtt-test") as pipeline:
                with pytest.raises(BrokerRefusedError, match="refused the connection") as error:
                    await Consumer(refused, pipeline).run(asyncio.Event())
    assert "wrong" not in str(error.value)


async def test_a_broker_that_restarts_is_found_again(mqtt_settings: Settings, owner: Owner) -> None:
    """The worker reconnects and subscribes anew by itself."""
    with servers.scratch_dir() as folder:
        port = servers.free_port()
        (folder / "broker.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
        (folder / "broker.conf").chmod(0o644)
        command = [str(servers.apache_root() / "usr/sbin/mosquitto"), "-c", str(folder / "broker.conf")]
        elsewhere = msgspec.structs.replace(mqtt_settings, mqtt_url=f"mqtt://127.0.0.1:{port}")
        with servers.process(command, folder / "log", signal.SIGKILL):
            await asyncio.sleep(0.5)
            stop = asyncio.Event()
            pipeline = await Pipeline(elsewhere, "mqtt-test").__aenter__()
            consumer = Consumer(elsewhere, pipeline)
            task = asyncio.create_task(consumer.run(stop))
            await asyncio.wait_for(consumer.connected.wait(), 10)
        for _ in range(100):
            if not consumer.connected.is_set():
                break
            await asyncio.sleep(0.05)
        assert not consumer.connected.is_set()
        with servers.process(command, folder / "log", signal.SIGKILL):
            await asyncio.wait_for(consumer.connected.wait(), 20)
            await Publisher(port)("telemetry/meter/m-again", METER)
            await wait_for(owner, "select * from meter_reading", 1)
            stop.set()
            await task
            await pipeline.__aexit__(None, None, None)

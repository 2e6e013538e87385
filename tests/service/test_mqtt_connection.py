"""The connection to the broker: what is in flight when it is lost, memory, pauses, take-overs."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from service.ingest import mqtt, mqtt_link
from service.ingest.mqtt import Consumer
from service.ingest.pipeline import Pipeline
from service.settings import Settings
from tests.support import servers
from tests.support.mqtt import (
    DUPLICATES,
    METER,
    METERS,
    PATIENCE_S,
    WAITING,
    broker,
    consuming,
    eventually,
    listening,
    publish,
    until_ready,
)
from tests.support.mqtt_raw import PUBACK, RawClient, proxy
from tests.support.strategies import Owner, encode, meter, rows

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]


async def _until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


async def test_late_acknowledgements_never_reach_a_new_session(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """What is committed after its connection was cut is not acknowledged on the next one.

    There the broker's packet ids mean other messages. The broker delivers it again, and it is acknowledged
    then: as a duplicate.
    """
    async with proxy(broker_port) as between:
        settings = msgspec.structs.replace(mqtt_settings, mqtt_url=f"mqtt://127.0.0.1:{between.port}")
        async with consuming(settings, ready):
            async with owner.transaction():
                await owner.execute("lock table meter_reading in access exclusive mode")
                await publish(broker_port, f"{METER}m-1", *(encode(meter(minute=n)) for n in range(3)))
                await eventually(owner, WAITING, 1)
                between.cut()
                await until_ready(ready)
                await asyncio.sleep(0.2)
                acknowledged = [[first for first, _ in sent].count(PUBACK) for sent in between.sent]
                assert acknowledged == [0, 0]
            await eventually(owner, METERS, 3)
            await eventually(owner, DUPLICATES, 3)
            await _until(lambda: [first for first, _ in between.sent[1]].count(PUBACK) == 3)
        first, second = between.sent
        assert PUBACK not in [kind for kind, _ in first]
        assert [body[2:3] for kind, body in second if kind == PUBACK] in ([b""] * 3, [b"\x00"] * 3)


async def test_a_message_that_fails_late_does_not_end_the_next_connection(
    mqtt_settings: Settings,
    broker_port: int,
    owner: Owner,
    ready: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What fails belongs to the connection that it came on."""
    submit_now = Pipeline.submit_now
    fail = asyncio.Event()
    calls = iter(range(1_000_000))

    async def fail_late() -> None:
        await fail.wait()
        raise RuntimeError("a defect")

    def flaky(self: Pipeline, *arguments: Any) -> Any:
        return asyncio.create_task(fail_late()) if next(calls) == 0 else submit_now(self, *arguments)

    monkeypatch.setattr(Pipeline, "submit_now", flaky)
    async with proxy(broker_port) as between:
        settings = msgspec.structs.replace(mqtt_settings, mqtt_url=f"mqtt://127.0.0.1:{between.port}")
        with capture_logs() as logged:
            async with consuming(settings, ready):
                await publish(broker_port, f"{METER}m-1", encode(meter()))
                await _until(lambda: next(calls) > 0)
                between.cut()
                await until_ready(ready)
                await eventually(owner, METERS, 1)
                fail.set()
                await _until(lambda: any(event["event"] == "message_not_stored" for event in logged))
                await asyncio.sleep(0.2)
                await publish(broker_port, f"{METER}m-1", encode(meter(minute=1)))
                await eventually(owner, METERS, 2)
    assert [event["event"] for event in logged].count("broker_lost") == 1
    assert len(between.sent) == 2


@pytest.mark.parametrize("edition", ["apache"])  # nothing here depends on it
async def test_memory_is_bounded_while_the_database_is_away(
    settings: Settings, owner: Owner, ready: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With big messages and a database that is locked for long, little is read, on one lasting connection.

    The keepalive is a second here: the lock lasts many of them, and gmqtt would give up after two.
    """
    monkeypatch.setattr(mqtt_link, "_KEEPALIVE_S", 1)
    port = servers.free_port()
    padding = b" " * 1_000_000
    bound = 4_000_000
    with (
        servers.scratch_dir() as folder,
        broker(folder, port, "allow_anonymous true\nmax_inflight_messages 0\n"),
    ):
        await listening(port)
        changed = msgspec.structs.replace(
            settings, mqtt_url=f"mqtt://127.0.0.1:{port}", mqtt_share="", buffer_max_bytes=bound
        )
        stop = asyncio.Event()
        with capture_logs() as logged:
            async with Pipeline(changed, "test") as pipeline:
                consumer = Consumer(changed, pipeline)
                running = asyncio.create_task(consumer.run(stop))
                await until_ready(ready)
                most = 0
                async with owner.transaction():
                    await owner.execute("lock table meter_reading in access exclusive mode")
                    async with RawClient(port) as device:
                        assert await device.connect("device") == 0
                        for minute in range(60):
                            payload = encode(meter(minute=minute)) + padding
                            assert await device.publish(f"{METER}m-1", payload) == 0
                    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                    end = time.monotonic() + 6
                    while time.monotonic() < end:
                        await asyncio.sleep(0.02)
                        most = max(most, consumer.handling_bytes)
                    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
                    assert consumer.connected.is_set()
                await eventually(owner, METERS, 60)
                stop.set()
                await running
    # The library's own buffers hold a message or two more.
    assert bound < most <= bound + 3 * len(padding)
    assert grown_kib < 50_000
    assert [event["event"] for event in logged].count("broker_connected") == 1
    assert await rows(owner, DUPLICATES) == [{"n": 0}]


@pytest.mark.parametrize("edition", ["apache"])  # nothing here depends on it
async def test_a_backlog_that_fills_memory_before_the_subscription_is_granted(
    settings: Settings, owner: Owner, ready: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker sends what waits before it answers: that may take longer than any time limit."""
    monkeypatch.setattr(mqtt_link, "_CONNECT_TIMEOUT_S", 1.0)
    port = servers.free_port()
    padding = b" " * 1_000_000
    with (
        servers.scratch_dir() as folder,
        broker(folder, port, "allow_anonymous true\nmax_inflight_messages 0\n"),
    ):
        await listening(port)
        changed = msgspec.structs.replace(
            settings, mqtt_url=f"mqtt://127.0.0.1:{port}", mqtt_share="", buffer_max_bytes=2_000_000
        )
        async with consuming(changed, ready):
            pass
        async with RawClient(port) as device:
            assert await device.connect("device") == 0
            for minute in range(10):
                assert await device.publish(f"{METER}m-1", encode(meter(minute=minute)) + padding) == 0
        with capture_logs() as logged:
            async with Pipeline(changed, "test") as pipeline:
                stop = asyncio.Event()
                async with owner.transaction():
                    await owner.execute("lock table meter_reading in access exclusive mode")
                    running = asyncio.create_task(Consumer(changed, pipeline).run(stop))
                    await asyncio.sleep(4)
                await until_ready(ready)
                await eventually(owner, METERS, 10)
                stop.set()
                await running
    assert [event["event"] for event in logged if event["component"] == "mqtt"] == ["broker_connected"]
    assert await rows(owner, DUPLICATES) == [{"n": 0}]


@pytest.mark.parametrize("edition", ["apache"])  # nothing here depends on it
async def test_a_connection_lost_while_memory_is_full_is_not_replaced_at_once(
    mqtt_settings: Settings,
    broker_port: int,
    owner: Owner,
    ready: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new connection would deliver once more what is in handling; it comes when there is room again.

    Whoever does not read learns of the loss by the next ping: the keepalive is a second here.
    """
    monkeypatch.setattr(mqtt_link, "_KEEPALIVE_S", 1)
    settings = msgspec.structs.replace(mqtt_settings, buffer_max_bytes=1000)
    async with proxy(broker_port) as between:
        changed = msgspec.structs.replace(settings, mqtt_url=f"mqtt://127.0.0.1:{between.port}")
        with capture_logs() as logged:
            async with consuming(changed, ready):
                async with owner.transaction():
                    await owner.execute("lock table meter_reading in access exclusive mode")
                    readings = [encode(meter(minute=minute)) for minute in range(30)]
                    await publish(broker_port, f"{METER}m-1", *readings)
                    await eventually(owner, WAITING, 1)
                    between.cut()
                    await _until(lambda: "broker_lost" in [event["event"] for event in logged])
                    await asyncio.sleep(2)
                    assert len(between.sent) == 1
                await until_ready(ready)
                await eventually(owner, METERS, 30)


async def test_a_stolen_client_id_is_told_and_fought_over_slowly(
    mqtt_settings: Settings,
    broker_port: int,
    owner: Owner,
    ready: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two workers with one id: the one that is thrown out says so and comes back later, not at once."""
    monkeypatch.setattr(mqtt, "_TAKEN_OVER_PAUSE_S", 4.0)
    with capture_logs() as logged:
        async with consuming(mqtt_settings, ready):
            async with RawClient(broker_port) as thief:
                began = time.monotonic()
                assert await thief.connect(mqtt_settings.mqtt_client_id, clean=False) == 0
                await until_ready(ready)
                assert time.monotonic() - began >= 2.0
            await publish(broker_port, f"{METER}m-1", encode(meter()))
            await eventually(owner, METERS, 1)
    [told] = [event for event in logged if event["event"] == "session_taken_over"]
    assert "FLEETWATT_MQTT_CLIENT_ID" in told["error"]


async def test_pauses_between_tries_grow() -> None:
    """A broker that is away is asked at growing intervals, and a consumer in such a pause stops at once."""
    settings = Settings(
        database_url="postgresql://127.0.0.1:1/none", mqtt_url=f"mqtt://127.0.0.1:{servers.free_port()}"
    )
    stop = asyncio.Event()
    with capture_logs() as logged:
        async with Pipeline(settings, "test") as pipeline:
            running = asyncio.create_task(Consumer(settings, pipeline).run(stop))
            await _until(lambda: len(logged) == 4)
            stop.set()
            async with asyncio.timeout(1):
                await running
    assert [event["pause_s"] for event in logged] == [0.5, 1.0, 2.0, 4.0]


async def test_stopping_while_the_broker_does_not_answer() -> None:
    """A broker that takes the connection and says nothing does not hold up the end."""
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = Settings(database_url="postgresql://127.0.0.1:1/none", mqtt_url=f"mqtt://127.0.0.1:{port}")
        stop = asyncio.Event()
        async with Pipeline(settings, "test") as pipeline:
            running = asyncio.create_task(Consumer(settings, pipeline).run(stop))
            await asked.wait()
            stop.set()
            async with asyncio.timeout(5):
                await running

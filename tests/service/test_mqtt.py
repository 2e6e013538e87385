"""Telemetry over MQTT through a real broker: what is stored, and that only what is stored is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import Any

import httpx
import msgspec
import pytest

from service.broker import BrokerAddress, BrokerRefusedError
from service.embedded import mosquitto
from service.errors import SettingsError
from service.ingest.mqtt import Consumer
from service.ingest.pipeline import Pipeline
from service.settings import Settings
from tests.support import servers
from tests.support.mqtt import (
    DUPLICATES,
    LETTERS,
    METER,
    METERS,
    PATIENCE_S,
    VEHICLE,
    VEHICLES,
    WAITING,
    broker,
    consuming,
    eventually,
    listening,
    publish,
    publish_raw,
    until_ready,
    worker_process,
)
from tests.support.strategies import Owner, altered, as_json, encode, meter, rows, vehicle

pytestmark = pytest.mark.anyio


async def test_payload_shapes(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """One reading, an array and an envelope, of both kinds, with or without the id that the topic gives."""
    async with consuming(mqtt_settings, ready):
        parts = [
            altered(meter("m-1", minute), **({"meterId": ...} if minute % 2 else {})) for minute in range(5)
        ]
        one, two, *more = parts
        await publish(
            broker_port,
            METER + "m-1",
            msgspec.json.encode(one),
            encode(two),
            msgspec.json.encode({"readings": more}),
        )
        await publish(broker_port, VEHICLE + "v:1._-", msgspec.json.encode(altered(vehicle(), vehicleId=...)))
        await eventually(owner, METERS, 5)
        await eventually(owner, VEHICLES, 1)
    [state] = await rows(owner, "select * from meter_state")
    assert (state["meter_id"], state["recorded_at"]) == ("m-1", meter(minute=4).recorded_at)
    [state] = await rows(owner, "select * from vehicle_state")
    assert state["vehicle_id"] == "v:1._-"
    assert await rows(owner, LETTERS) == [{"n": 0}]


async def test_bad_payloads_are_kept_and_acknowledged(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """What is refused becomes a dead letter with topic and bytes, is acknowledged, and the stream goes on."""
    topic = METER + "m-1"
    bad = {
        b"{": "malformed_json",
        b"\xff\x00\n\xfe": "malformed_json",
        b"5": "wrong_shape",
        b"[]": "empty_batch",
        b"": "empty_body",
        b"[" * 100_000: "too_deep",
        msgspec.json.encode(altered(meter("m-2"))): "id_mismatch",
        msgspec.json.encode(altered(meter("m-1"), voltage="230")): "wrong_type",
        msgspec.json.encode(altered(meter("m-1"), timestamp="2999-01-01T00:00:00Z")): "future_timestamp",
        msgspec.json.encode(as_json(vehicle("m-1"))): "missing",
    }
    async with consuming(mqtt_settings, ready):
        for payload in bad:
            await publish_raw(broker_port, topic, payload)
        await publish(broker_port, topic, encode(meter(), altered(meter(minute=1), voltage=-1)))
        await publish(broker_port, topic, encode(altered(meter(), voltage=1)))
        await eventually(owner, METERS, 1)
        await eventually(owner, LETTERS, len(bad) + 2)
    letters = await rows(owner, "select * from dead_letter order by dead_letter_id")
    found = {bytes(letter["raw"]): letter["code"] for letter in letters}
    assert {payload: found.get(payload) for payload in bad} == bad
    assert sorted(found.values()) == sorted([*bad.values(), "out_of_range", "conflict"])
    assert {letter["origin"] for letter in letters} == {f"mqtt:{topic}"}
    mismatch = next(letter for letter in letters if letter["code"] == "id_mismatch")
    assert (mismatch["device_id"], mismatch["kind"], mismatch["field"]) == ("m-1", "meter", "meterId")
    # Acknowledged: the next consumer of the session gets none of it again.
    async with consuming(mqtt_settings, ready):
        await publish(broker_port, topic, encode(meter(minute=2)))
        await eventually(owner, METERS, 2)
    assert await rows(owner, LETTERS) == [{"n": len(bad) + 2}]


async def test_topics(mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket) -> None:
    """A topic of no known kind or with an id that no device can have is a dead letter of its own."""
    topics = [
        "telemetry/boat/b-1",
        METER + "m 1",
        METER + "x" * 65,
        METER + "zähler",
        METER,
        "telemetry/Meter/m-1",
    ]
    payload = msgspec.json.encode(altered(meter(), meterId=...))
    async with consuming(mqtt_settings, ready):
        for topic in topics:
            await publish(broker_port, topic, payload)
        # Not telemetry at all, so nobody asked for it.
        await publish(broker_port, METER + "m-1/more", payload)
        await publish(broker_port, METER + "m-1", payload)
        await eventually(owner, METERS, 1)
        await eventually(owner, LETTERS, len(topics))
    letters = await rows(owner, "select * from dead_letter order by dead_letter_id")
    assert [letter["origin"] for letter in letters] == [f"mqtt:{topic}" for topic in topics]
    assert {letter["code"] for letter in letters} == {"unknown_topic"}
    assert {bytes(letter["raw"]) for letter in letters} == {payload}


async def test_publishers_of_any_quality(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """A publisher at QoS 0 or 2 is served too, and a retained message does no harm."""
    topic = METER + "m-qos"
    async with consuming(mqtt_settings, ready):
        for qos in (0, 1, 2):
            options = ("-q", str(qos), *(["-r"] if qos == 2 else []))
            await publish_raw(broker_port, topic, encode(meter("m-qos", qos)), *options)
        await eventually(owner, METERS, 3)
        # An empty retained message takes the retained one away; to us it is a payload like any other.
        await publish_raw(broker_port, topic, b"", "-r")
        await eventually(owner, LETTERS, 1)


async def test_nothing_is_lost_while_nobody_listens(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """What is published between two lives of a consumer waits in its session."""
    async with consuming(mqtt_settings, ready):
        pass
    await publish(broker_port, METER + "m-1", *[encode(meter(minute=minute)) for minute in range(50)])
    async with consuming(mqtt_settings, ready):
        await eventually(owner, METERS, 50)
    assert await rows(owner, DUPLICATES) == [{"n": 0}]


async def test_stopping_in_full_stream(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """A consumer that stops in the middle drains what it took: all is stored once, over two lives."""
    payloads = [encode(meter(minute=minute)) for minute in range(600)]
    async with consuming(mqtt_settings, ready):
        publishing = asyncio.create_task(publish(broker_port, METER + "m-1", *payloads))
        while (await rows(owner, METERS))[0]["n"] == 0:
            await asyncio.sleep(0.001)
    await publishing
    async with consuming(mqtt_settings, ready):
        await eventually(owner, METERS, 600)
    assert await rows(owner, DUPLICATES) == [{"n": 0}]


async def test_acknowledged_after_the_commit(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """A worker that is killed before the commit has acknowledged nothing: the next one stores it, once."""
    async with worker_process(mqtt_settings, ready) as worker, owner.transaction():
        await owner.execute("lock table meter_reading in access exclusive mode")
        await publish(broker_port, METER + "m-1", encode(meter()), encode(meter(minute=1)))
        await eventually(owner, WAITING, 1)
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
        # The server sees that its client is gone, and drops what that had asked for.
        await eventually(owner, WAITING, 0)
    assert await rows(owner, METERS) == [{"n": 0}]
    async with consuming(mqtt_settings, ready):
        await eventually(owner, METERS, 2)
    async with consuming(mqtt_settings, ready):
        await publish(broker_port, METER + "m-1", encode(meter(minute=2)))
        await eventually(owner, METERS, 3)
    assert await rows(owner, DUPLICATES) == [{"n": 0}]


@pytest.mark.parametrize("login", ["", "somebody:wrong@"])
async def test_wrong_credentials(login: str) -> None:
    """A broker that will never have us ends the consumer with words, instead of trying for ever."""
    with servers.scratch_dir() as folder:
        port = servers.free_port()
        with broker(folder, port, "allow_anonymous false\n"):
            await listening(port)
            settings = Settings(
                database_url="postgresql://127.0.0.1:1/none", mqtt_url=f"mqtt://{login}127.0.0.1:{port}"
            )
            async with Pipeline(settings, "test") as pipeline, asyncio.timeout(PATIENCE_S):
                with pytest.raises(BrokerRefusedError, match="FLEETWATT_MQTT_URL") as refused:
                    await Consumer(settings, pipeline).run(asyncio.Event())
    assert "wrong" not in str(refused.value)


@pytest.mark.parametrize("edition", ["apache"])  # nothing here depends on it
async def test_the_broker_comes_back(settings: Settings, owner: Owner, ready: socket.socket) -> None:
    """A consumer outlives its broker: it connects again, subscribes again, and nothing is lost or doubled."""
    with servers.scratch_dir() as folder:
        folder.chmod(0o777)
        port = servers.free_port()
        lines = f"allow_anonymous true\npersistence true\npersistence_location {folder}/\n"
        changed = msgspec.structs.replace(settings, mqtt_url=f"mqtt://127.0.0.1:{port}")
        with contextlib.ExitStack() as first:
            first.enter_context(broker(folder, port, lines))
            await listening(port)
            async with consuming(changed, ready):
                await publish(port, METER + "m-1", encode(meter()))
                await eventually(owner, METERS, 1)
                await asyncio.to_thread(first.close)
                with broker(folder, port, lines):
                    await until_ready(ready)
                    await publish(port, METER + "m-1", encode(meter(minute=1)))
                    await eventually(owner, METERS, 2)
    assert await rows(owner, DUPLICATES) == [{"n": 0}]


async def test_a_restarted_broker_keeps_messages_for_the_only_worker(
    settings: Settings, owner: Owner, ready: socket.socket
) -> None:
    """Without a share the subscription survives the broker: what it takes before the worker is back is kept.

    Mosquitto 2.0 forgets shared subscriptions at each restart, and with them what is published meanwhile.
    """
    root = servers.apache_root()
    with servers.scratch_dir() as folder:
        port = servers.free_port()
        command = mosquitto.command_line(root, folder / "mosquitto", port, servers.ACCOUNT)
        only = msgspec.structs.replace(
            settings, mqtt_url=f"mqtt://127.0.0.1:{port}", mqtt_client_id="only", mqtt_share=""
        )
        with servers.process(command, folder / "log", signal.SIGTERM):
            await asyncio.to_thread(servers.wait_for_port, port, folder / "log")
            async with consuming(only, ready):
                await publish(port, f"{METER}m-1", encode(meter(minute=0)))
                await eventually(owner, METERS, 1)
        with servers.process(command, folder / "log", signal.SIGTERM):
            await asyncio.to_thread(servers.wait_for_port, port, folder / "log")
            await publish(port, f"{METER}m-1", *(encode(meter(minute=minute)) for minute in range(1, 20)))
            async with consuming(only, ready):
                await eventually(owner, METERS, 20)


async def test_a_message_that_could_not_be_stored_comes_again(
    mqtt_settings: Settings,
    owner: Owner,
    broker_port: int,
    ready: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Left unacknowledged because of a defect of ours, it is delivered anew on a new connection."""
    submit_now = Pipeline.submit_now
    failures = iter([True, True])

    def flaky(self: Pipeline, *arguments: Any) -> Any:
        if next(failures, False):
            raise RuntimeError("a defect")
        return submit_now(self, *arguments)

    monkeypatch.setattr(Pipeline, "submit_now", flaky)
    async with consuming(mqtt_settings, ready):
        await publish(broker_port, f"{METER}m-1", encode(meter()))
        await eventually(owner, METERS, 1)
        assert next(failures, None) is None


def test_broker_address() -> None:
    """Host, port, TLS, user and password are read; the password is not in its text."""
    for url, expected in {
        "mqtt://broker": ("broker", 1883, False, None, None),
        "mqtts://broker": ("broker", 8883, True, None, None),
        "mqtt://user:p%40ss@broker:1884": ("broker", 1884, False, "user", "p@ss"),
        "mqtt://[::1]:1883": ("::1", 1883, False, None, None),
    }.items():
        address = BrokerAddress.from_url(url)
        found = (address.host, address.port, address.tls, address.user, address.password)
        assert found == expected
        assert "p@ss" not in str(address)


@pytest.mark.parametrize(
    "url", ["broker", "broker:1883", "http://broker", "mqtt://", "mqtt://broker:port", "mqtt://broker:99999"]
)
def test_bad_broker_address(url: str) -> None:
    """An address that cannot be read is a mistake in a setting, and the message shows a good one."""
    with pytest.raises(SettingsError, match=r"mqtt://\[user:password@\]host"):
        BrokerAddress.from_url(url)


def test_no_broker() -> None:
    """A consumer without an address says which setting to give."""
    settings: Any = Settings(database_url="postgresql://127.0.0.1:1/none")
    with pytest.raises(SettingsError, match="FLEETWATT_MQTT_URL"):
        Consumer(settings, Pipeline(settings, "test"))


async def test_a_worker_tells_its_metrics(mqtt_settings: Settings, ready: socket.socket) -> None:
    """Where a port is set a worker answers /metrics there, with the breaker and the buffer of its own."""
    port = servers.free_port()
    changed = msgspec.structs.replace(mqtt_settings, worker_metrics_port=port)
    async with worker_process(changed, ready), httpx.AsyncClient(trust_env=False) as client:
        found = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    assert "fleetwatt_breaker_state 0.0" in found
    assert "fleetwatt_buffer_readings 0.0" in found

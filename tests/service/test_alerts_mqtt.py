"""Alerts over MQTT through a real broker: a vehicle's state, retained; what is acknowledged counts."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.alerts.delivery import Delivery
from service.alerts.publisher import Message, publish_retained
from service.broker import BrokerAddress
from service.settings import Settings
from tests.support import servers
from tests.support.alert_data import close_alert, put_alert
from tests.support.alert_receivers import deliveries, eventually, receiving, retained, until
from tests.support.mqtt import worker_process
from tests.support.strategies import Owner, rows

pytestmark = pytest.mark.anyio

SAID, UNSAID = "mqtt_delivered_at is not null", "mqtt_delivered_at is null"


@pytest.fixture
def vehicle(database: str, edition: str) -> str:
    """Name a vehicle of the test's own: the broker is everybody's, and what is retained stays."""
    return f"{edition}:{database}"


@pytest.fixture
def quick(mqtt_settings: Settings) -> Settings:
    """Give settings with a broker and the pauses of a test."""
    return msgspec.structs.replace(mqtt_settings, alert_poll_s=0.1, alerts=False)


@contextmanager
def broker(folder: Path, port: int, rules: str = "") -> Iterator[None]:
    """Run a broker of the test's own, with access rules for all; it keeps nothing over a restart."""
    (folder / "rules").write_text(rules or "topic readwrite #\n")
    (folder / "rules").chmod(0o644)
    configuration = folder / "mosquitto.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nacl_file {folder}/rules\n")
    configuration.chmod(0o644)
    command = [str(servers.apache_root() / "usr/sbin/mosquitto"), "-c", str(configuration)]
    with servers.process(command, folder / "mosquitto.log", signal.SIGTERM):
        servers.wait_for_port(port, folder / "mosquitto.log")
        yield


async def test_opened_and_closed(quick: Settings, owner: Owner, broker_port: int, vehicle: str) -> None:
    """A new subscriber gets all open alerts of a vehicle, and an empty list once there is none."""
    async with Delivery(quick):
        one = await put_alert(owner, vehicle, "m-1")
        await until(owner, SAID, 1)
        was_retained, state = await retained(broker_port, vehicle)
        assert was_retained
        assert (state["vehicleId"], [alert["alertId"] for alert in state["alerts"]]) == (vehicle, [one])
        assert state["alerts"][0]["ratioLatest"] == 0.7
        two = await put_alert(owner, vehicle, "m-2", kind="data_fault", ratio=1.3)
        await until(owner, SAID, 2)
        _, state = await retained(broker_port, vehicle)
        assert [(a["alertId"], a["kind"]) for a in state["alerts"]] == [
            (one, "low_efficiency"),
            (two, "data_fault"),
        ]
        await close_alert(owner, one)
        await until(owner, SAID, 3)
        assert [a["alertId"] for a in (await retained(broker_port, vehicle))[1]["alerts"]] == [two]
        await close_alert(owner, two)
        await until(owner, SAID, 4)
        assert await retained(broker_port, vehicle) == (True, {"vehicleId": vehicle, "alerts": []})


async def test_what_was_missed_is_said_later(
    quick: Settings, owner: Owner, broker_port: int, vehicle: str
) -> None:
    """Events from while nobody delivered are not lost: the next process says the state that they led to."""
    one = await put_alert(owner, vehicle, "m-1")
    two = await put_alert(owner, vehicle, "m-2")
    await close_alert(owner, one)
    async with Delivery(quick):
        await until(owner, SAID, 3)
    assert [a["alertId"] for a in (await retained(broker_port, vehicle))[1]["alerts"]] == [two]


async def test_the_broker_is_away(quick: Settings, owner: Owner, vehicle: str) -> None:
    """While the broker is away the webhook gets its events all the same; MQTT follows once it is back."""
    port = servers.free_port()
    with servers.scratch_dir() as folder:
        async with receiving() as receiver:
            changed = msgspec.structs.replace(
                quick, mqtt_url=f"mqtt://127.0.0.1:{port}", alert_webhook_url=receiver.url
            )
            async with Delivery(changed):
                alert_id = await put_alert(owner, vehicle)
                await until(owner, f"webhook_state = 'delivered' and {UNSAID}", 1)
                with broker(folder, port):
                    await until(owner, SAID, 1)
                    _, state = await retained(port, vehicle)
                    assert [alert["alertId"] for alert in state["alerts"]] == [alert_id]
                # Gone again: what happens now waits.
                await close_alert(owner, alert_id)
                await until(owner, "webhook_state = 'delivered'", 2)
                assert len(await rows(owner, f"select from alert_event where {UNSAID}")) == 1
        with broker(folder, port):
            async with Delivery(changed):
                await until(owner, SAID, 2)
                assert (await retained(port, vehicle))[1]["alerts"] == []


async def test_a_dead_webhook_holds_up_nothing(
    quick: Settings, owner: Owner, broker_port: int, vehicle: str
) -> None:
    """While the webhook lets each request hang, the state of vehicles is published."""
    async with receiving(*[None] * 100) as receiver:
        hook: dict[str, Any] = {"alert_webhook_url": receiver.url, "alert_webhook_timeout_s": 3600}
        changed = msgspec.structs.replace(quick, **hook)
        async with Delivery(changed):
            for number in range(20):
                await put_alert(owner, f"{vehicle}-{number}")
            await until(owner, f"webhook_state = 'pending' and {SAID}", 20)
            await eventually(lambda: bool(receiver.requests))
    assert (await retained(broker_port, f"{vehicle}-19"))[1]["alerts"]


async def test_refused_by_the_broker(quick: Settings, owner: Owner, vehicle: str) -> None:
    """What the broker's access rules refuse is not delivered, though it answers; it is said later."""
    port = servers.free_port()
    settings = msgspec.structs.replace(quick, mqtt_url=f"mqtt://127.0.0.1:{port}")
    address = BrokerAddress.from_url(settings.mqtt_url)
    rules = f"topic deny alerts/vehicle/{vehicle}-0\ntopic readwrite #\n"
    with servers.scratch_dir() as folder:
        for number in range(2):
            await put_alert(owner, f"{vehicle}-{number}")
        with broker(folder, port, rules):
            messages = [Message(f"alerts/vehicle/{vehicle}-{number}", b"{}") for number in range(2)]
            assert await publish_retained(address, "test", messages) == {messages[0].topic: 135}
            async with Delivery(settings):
                before = deliveries("mqtt", "failed")
                await eventually(lambda: deliveries("mqtt", "failed") > before + 1)
                [event] = await rows(owner, f"select * from alert_event where {UNSAID}")  # noqa: S608
                assert event["vehicle_id"] == f"{vehicle}-0"
        with broker(folder, port):
            async with Delivery(settings):
                await until(owner, SAID, 2)


async def test_a_forgetful_broker_is_told_again(quick: Settings, owner: Owner, vehicle: str) -> None:
    """At its start a process says again what matters: open alerts, and the all clear of lately."""
    port = servers.free_port()
    settings = msgspec.structs.replace(quick, mqtt_url=f"mqtt://127.0.0.1:{port}")
    await put_alert(owner, f"{vehicle}-open")
    await close_alert(owner, await put_alert(owner, f"{vehicle}-closed"))
    with servers.scratch_dir() as folder:
        for _ in range(2):
            with broker(folder, port):
                async with Delivery(settings):
                    assert (await retained(port, f"{vehicle}-open"))[1]["alerts"]
                    assert (await retained(port, f"{vehicle}-closed"))[1]["alerts"] == []
                    await until(owner, SAID, 3)


async def test_more_than_the_broker_takes_at_once(quick: Settings, owner: Owner, vehicle: str) -> None:
    """A whole fleet's alerts go out within the broker's receive maximum, in several rounds."""
    port = servers.free_port()
    settings = msgspec.structs.replace(quick, mqtt_url=f"mqtt://127.0.0.1:{port}")
    for number in range(620):
        await put_alert(owner, f"{vehicle}-{number}")
    with servers.scratch_dir() as folder, broker(folder, port, "topic readwrite #\n"):
        async with Delivery(settings):
            await until(owner, SAID, 620)
        assert (await retained(port, f"{vehicle}-619"))[1]["alerts"]


async def test_an_id_that_came_past_the_engine(
    quick: Settings, owner: Owner, broker_port: int, vehicle: str
) -> None:
    """A vehicle whose id is no topic level is published escaped, and holds up nobody."""
    await put_alert(owner, f"{vehicle}/+#")
    await put_alert(owner, vehicle)
    async with Delivery(quick):
        await until(owner, SAID, 2)
    _, state = await retained(broker_port, f"{vehicle}%2F%2B%23")
    assert state["vehicleId"] == f"{vehicle}/+#"


async def test_a_killed_worker(
    quick: Settings, ready: socket.socket, owner: Owner, broker_port: int, vehicle: str
) -> None:
    """`fleetwatt worker` delivers; killed, its lock is free at once and another process goes on."""
    async with worker_process(quick, ready) as worker:
        await put_alert(owner, f"{vehicle}-1")
        await until(owner, SAID, 1)
        async with Delivery(quick):
            held = "select pid from pg_locks where locktype = 'advisory' and classid = 26220 and granted"
            [before] = await rows(owner, held)
            worker.send_signal(signal.SIGKILL)
            await worker.wait()
            await put_alert(owner, f"{vehicle}-2")
            await until(owner, SAID, 2)
            [after] = await rows(owner, held)
            assert after != before
    assert (await retained(broker_port, f"{vehicle}-2"))[1]["alerts"]


async def test_wrong_credentials(quick: Settings, owner: Owner, vehicle: str) -> None:
    """A broker that refuses us leaves the events where they are, and the process alive."""
    port = servers.free_port()
    with servers.scratch_dir() as folder:
        configuration = folder / "mosquitto.conf"
        configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous false\n")
        configuration.chmod(0o644)
        command = [str(servers.apache_root() / "usr/sbin/mosquitto"), "-c", str(configuration)]
        with servers.process(command, folder / "mosquitto.log", signal.SIGTERM):
            servers.wait_for_port(port, folder / "mosquitto.log")
            settings = msgspec.structs.replace(quick, mqtt_url=f"mqtt://somebody:wrong@127.0.0.1:{port}")
            await put_alert(owner, vehicle)
            before = deliveries("mqtt", "failed")
            async with Delivery(settings):
                await eventually(lambda: deliveries("mqtt", "failed") > before + 1)
    assert len(await rows(owner, f"select from alert_event where {UNSAID}")) == 1

"""Publishers that are not as they should be: whatever they send, the consumer and the others go on."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import msgspec
import pytest

from service.settings import Settings
from tests.support import servers
from tests.support.mqtt import (
    DUPLICATES,
    LETTERS,
    METER,
    METERS,
    PATIENCE_S,
    broker,
    consuming,
    eventually,
    listening,
    until_ready,
)
from tests.support.mqtt_raw import CLOSED, PUBACK, RawClient, proxy
from tests.support.strategies import Owner, encode, meter, rows

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]


async def test_odd_publishers_do_no_harm(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """Old protocol, every QoS, wills, odd topics and properties, empty payloads: the rest goes on."""
    topic = f"{METER}m-1"
    letters = 0
    async with consuming(mqtt_settings, ready):
        for number, version in enumerate((4, 5)):
            async with RawClient(broker_port, version=version) as client:
                will = (topic, encode(meter(minute=10 + number)))
                assert await client.connect(f"odd-{version}", will=will) == 0
                for qos in (0, 1, 2):
                    payload = encode(meter(minute=20 + 3 * number + qos))
                    assert await client.publish(topic, payload, qos=qos) == 0
                assert await client.publish(METER + "x" * (65_535 - len(METER)), b"{}") == 0
                assert await client.publish(topic, b"") == 0
                letters += 2
        await eventually(owner, METERS, 8)
        for broken in (
            METER.encode() + b"\xff\xfe",
            f"{METER}\x00",
            f"{METER}\x7f",
            f"{METER}+",
            f"{METER}#",
            "",
        ):
            async with RawClient(broker_port) as client:
                assert await client.connect("broken") == 0
                assert await client.publish(broken, b"{}") in {CLOSED, 0x90}
        async with RawClient(broker_port) as client:
            assert await client.connect("properties") == 0
            # Payload format indicator, message expiry, a user property, content type, response topic.
            given = bytes([1, 1, 2, 0, 0, 1, 0, 38, 0, 1, 97, 0, 1, 98, 3, 0, 1, 99, 8, 0, 1, 100])
            assert await client.publish(topic, encode(meter(minute=40)), properties=given) == 0
            # What devices publish below $SYS reaches nobody.
            assert await client.publish("$SYS/broker/uptime", b"{}") in {0, 16, 0x87, CLOSED}
        await eventually(owner, METERS, 9)
        await eventually(owner, LETTERS, letters)
    origins = {row["origin"] for row in await rows(owner, "select origin from dead_letter")}
    assert all(len(origin) <= 1000 for origin in origins)


@pytest.mark.parametrize("edition", ["apache"])  # nothing here depends on it
async def test_retained_readings_come_once(settings: Settings, owner: Owner, ready: socket.socket) -> None:
    """A plain subscription is given what was retained before it, once, not at each reconnecting."""
    port = servers.free_port()
    with servers.scratch_dir() as folder, broker(folder, port, "allow_anonymous true\n"):
        await listening(port)
        async with proxy(port) as between, RawClient(port) as device:
            changed = msgspec.structs.replace(
                settings, mqtt_url=f"mqtt://127.0.0.1:{between.port}", mqtt_share=""
            )
            assert await device.connect("device") == 0
            assert await device.publish(f"{METER}m-kept", encode(meter("m-kept")), retain=True) in {0, 16}
            async with consuming(changed, ready):
                await eventually(owner, METERS, 1)
                async with asyncio.timeout(PATIENCE_S):
                    # Cut before its acknowledgement it would come again, and rightly so.
                    while PUBACK not in [kind for kind, _ in between.sent[0]]:
                        await asyncio.sleep(0.02)
                for _ in range(2):
                    between.cut()
                    await until_ready(ready)
                await device.publish(f"{METER}m-kept", encode(meter("m-kept", 1)))
                await eventually(owner, METERS, 2)
    assert await rows(owner, DUPLICATES) == [{"n": 0}]


@pytest.mark.parametrize("edition", ["apache"])  # nothing here depends on it
async def test_huge_messages_do_not_stop_the_others(
    settings: Settings, owner: Owner, ready: socket.socket
) -> None:
    """The broker does not send what is larger than we take, and a large one that fits is handled."""
    port = servers.free_port()
    with servers.scratch_dir() as folder, broker(folder, port, "allow_anonymous true\n"):
        await listening(port)
        changed = msgspec.structs.replace(
            settings, mqtt_url=f"mqtt://127.0.0.1:{port}", mqtt_max_packet_bytes=2_000_000
        )
        async with consuming(changed, ready):
            for size, minute in ((10_000_000, 0), (1_500_000, 1), (0, 2)):
                async with RawClient(port) as device:
                    assert await device.connect("device") == 0
                    with contextlib.suppress(ConnectionError):
                        await device.publish(f"{METER}m-1", encode(meter(minute=minute)) + b" " * size)
            await eventually(owner, METERS, 2)

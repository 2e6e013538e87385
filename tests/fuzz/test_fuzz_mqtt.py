"""Damaged MQTT packets and odd payloads at a real broker, a real worker behind it: it goes on storing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from random import Random

import msgspec
import pytest

from service.settings import Settings
from tests.fuzz import payloads, texts
from tests.support import servers
from tests.support.mqtt import METER, broker, eventually, listening, publish, worker_process
from tests.support.strategies import Owner, as_json, meter, rows

pytestmark = pytest.mark.anyio

_SENDERS = 8
_PACKETS_EACH = 500
_PACKETS_A_CONNECTION = 20


def _field(text: bytes) -> bytes:
    return (len(text) % 65_536).to_bytes(2, "big") + text


def _packet(head: int, body: bytes) -> bytes:
    """Give a packet of MQTT 5 (2.1.1): its first byte, the length in sevens of bits, the rest."""
    length = len(body)
    sevens = b""
    while True:
        length, low = divmod(length, 128)
        sevens += bytes([low | (0x80 if length else 0)])
        if not length:
            return bytes([head]) + sevens + body


def _publish(rng: Random, number: int) -> bytes:
    """Give a PUBLISH of a payload that may be odd, on one of our topics."""
    kind = rng.choice(("telemetry/meter", "telemetry/vehicle", "sessions"))
    qos = rng.choice((0, 1, 1, 2))
    middle = number.to_bytes(2, "big") if qos else b""
    body = _field(f"{kind}/m-{rng.randrange(99)}".encode()) + middle + b"\0" + payloads.payload(rng)
    return _packet(0x30 | qos << 1, body)


def _odd_publish(rng: Random, number: int) -> bytes:
    """Give a PUBLISH of any topic, properties and flags, some bytes damaged: most are the last word."""
    topic = rng.choice((texts.topic(rng).encode()[:60_000], rng.randbytes(rng.randrange(20))))
    # Expiry, content type, an alias, a user property; sometimes anything.
    odd = (b"\x02\0\0\0\x09", b"\x03\0\1x", b"\x23\0\1", b"\x26\0\1a\0\1b", rng.randbytes(5))
    body = _field(topic) + number.to_bytes(2, "big") + _field(rng.choice((b"", *odd)))[1:]
    packet = _packet(0x30 | rng.randrange(16), body + payloads.payload(rng))
    return payloads.mutated(rng, packet) if rng.random() < 0.5 else packet


def _connect(rng: Random) -> bytes:
    version = rng.choice((4, 5, 5, 5))
    body = _field(b"MQTT") + bytes([version, 2, 0, 60]) + (b"\0" if version == 5 else b"") + _field(b"")
    packet = _packet(0x10, body)
    return payloads.mutated(rng, packet) if rng.random() < 0.1 else packet


async def _sender(port: int, rng: Random) -> int:
    """Send packets over many connections; the broker ends those that it has had enough of."""
    sent = 0
    while sent < _PACKETS_EACH:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(_connect(rng))
                make = rng.choice((_publish, _odd_publish))
                for number in range(1, _PACKETS_A_CONNECTION + 1):
                    writer.write(make(rng, number))
                    sent += 1
                    if rng.random() < 0.2:
                        await writer.drain()
                writer.write(rng.choice((_packet(0xE0, b"\0"), b"", rng.randbytes(9))))
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        while await reader.read(65_536):
                            pass
                writer.close()
    return sent


@pytest.mark.parametrize("edition", ["apache"])  # nothing here depends on it
async def test_a_worker_outlives_what_the_broker_lets_through(
    settings: Settings, owner: Owner, ready: socket.socket
) -> None:
    """Thousands of packets, most of them wrong: one process takes good readings before, amid and after."""
    seed = int.from_bytes(os.urandom(4), "big")
    port = servers.free_port()
    address = f"mqtt://127.0.0.1:{port}"
    changed = msgspec.structs.replace(settings, mqtt_url=address, mqtt_client_id="fuzz")
    lines = "allow_anonymous true\nmax_inflight_messages 0\n"
    with servers.scratch_dir() as folder, broker(folder, port, lines):
        await listening(port)
        async with worker_process(changed, ready) as worker:
            fuzz = asyncio.gather(*(_sender(port, Random(seed + number)) for number in range(_SENDERS)))
            good = [msgspec.json.encode(as_json(meter("good", minute))) for minute in range(300)]
            for start in range(0, 200, 50):
                await publish(port, METER + "good", *good[start : start + 50])
            sent = sum(await fuzz)
            await publish(port, METER + "good", *good[200:])
            await eventually(owner, "select count(*) as n from meter_reading where meter_id = 'good'", 300)
            assert worker.returncode is None, seed
    assert sent >= _SENDERS * _PACKETS_EACH, seed
    [letters] = await rows(owner, "select count(*) as n from dead_letter")
    assert letters["n"] > 300, seed

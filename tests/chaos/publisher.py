"""A publisher of MQTT 5 at QoS 1, small enough to see that it counts only what the broker took.

Unlike gmqtt's, it reads the reason of an acknowledgement: Mosquitto answers 16 (no matching subscribers)
to what it drops, after a restart and before the workers have subscribed again, and such a message must be
sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections import Counter, deque
from typing import Final

import msgspec

from tests.chaos.ledger import Key, Ledger

# Brokers take at least 20 in flight by default.
_WINDOW: Final = 20
_PATIENCE_S: Final = 10.0
_PUBACK: Final = 0x40
_CONNACK: Final = 0x20
_NO_SUBSCRIBERS: Final = 16


class _Message(msgspec.Struct):
    keys: list[Key]
    topic: bytes
    payload: bytes


class Publisher:
    """Publishes the readings of a meter and a vehicle until told to stop, then what is unacknowledged.

    `problems` lists what a publisher that sends again as it should must never see.
    """

    def __init__(self, port: int, name: str, ledger: Ledger, pause_s: float) -> None:
        self._port = port
        self._name = name
        self._ledger = ledger
        self._pause_s = pause_s
        self._unacknowledged: dict[int, _Message] = {}
        self._again: deque[_Message] = deque()
        self._next_id = 0
        self._changed = asyncio.Event()
        self.causes: Counter[str] = Counter()
        self.problems: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop` is set and the broker has taken everything."""
        while not (stop.is_set() and not self._unacknowledged and not self._again):
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    reader, writer = await open_session(self._port, self._name)
            except (OSError, EOFError, TimeoutError) as error:
                self.causes[f"mqtt {type(error).__name__}"] += 1
                await asyncio.sleep(random.uniform(0.05, 0.3))
                continue
            try:
                async with asyncio.TaskGroup() as group:
                    hearing = group.create_task(self._hear(reader))
                    group.create_task(self._say(writer, stop, hearing))
            except* (OSError, EOFError, TimeoutError) as errors:
                self.causes[f"mqtt {type(errors.exceptions[0]).__name__}"] += 1
            finally:
                writer.transport.abort()
                self._again.extend(self._unacknowledged.values())
                self._unacknowledged.clear()

    async def _say(
        self, writer: asyncio.StreamWriter, stop: asyncio.Event, hearing: asyncio.Task[None]
    ) -> None:
        while not stop.is_set() or self._again or self._unacknowledged:
            room = len(self._unacknowledged) < _WINDOW
            if room and (self._again or not stop.is_set()):
                message = self._again.popleft() if self._again else self._new()
                self._next_id = self._next_id % 65_535 + 1
                self._unacknowledged[self._next_id] = message
                body = encode_text(message.topic) + struct.pack(">HB", self._next_id, 0) + message.payload
                writer.write(b"\x32" + encode_length(len(body)) + body)
                await writer.drain()
                await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.5))
            else:
                self._changed.clear()
                async with asyncio.timeout(_PATIENCE_S):
                    await self._changed.wait()
        hearing.cancel()

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                kind, body = await _packet(reader)
                if kind != _PUBACK:
                    raise EOFError
                message = self._unacknowledged.pop(int.from_bytes(body[:2], "big"))
                reason = body[2] if len(body) > 2 else 0
                if reason == _NO_SUBSCRIBERS:
                    self.causes["mqtt no subscribers"] += 1
                    self._again.append(message)
                elif reason:
                    self.problems.append(f"the broker refused a message (reason {reason})")
                else:
                    self._ledger.acknowledge(message.keys)
                self._changed.set()

    def _new(self) -> _Message:
        kind = random.choice(["meter", "vehicle"])
        made = [
            self._ledger.reading(self._name, kind, named=random.random() < 0.5)
            for _ in range(random.choice([1, 1, 1, 5]))
        ]
        keys = [key for key, _ in made]
        bodies = [body for _, body in made]
        payload = msgspec.json.encode(bodies[0] if len(bodies) == 1 else bodies)
        return _Message(keys, f"telemetry/{kind}/{keys[0][0]}".encode(), payload)


async def open_session(port: int, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a broker on loopback with a clean start. Raises ConnectionError when it refuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # No keep alive, since an answer is waited for only so long.
    head = b"\x00\x04MQTT\x05\x02\x00\x00\x00" + encode_text(name.encode())
    writer.write(b"\x10" + encode_length(len(head)) + head)
    kind, body = await _packet(reader)
    if kind != _CONNACK or body[1]:
        writer.transport.abort()
        raise ConnectionRefusedError(f"the broker refused the connection: {body.hex()}")
    return reader, writer


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one packet: its type (the flags cut off) and the rest."""
    kind = (await reader.readexactly(1))[0] & 0xF0
    length, shift = 0, 0
    while True:
        digit = (await reader.readexactly(1))[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            return kind, await reader.readexactly(length)


def encode_length(number: int) -> bytes:
    """Write a length as MQTT does: seven bits a byte, the least first."""
    result = bytearray()
    while True:
        number, digit = divmod(number, 128)
        result.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(result)


def encode_text(text: bytes) -> bytes:
    """Write a text as MQTT does: its length in two bytes, then itself."""
    return struct.pack(">H", len(text)) + text

"""A publisher of MQTT 3.1.1 or 5 at QoS 1, small enough to see that it counts only what the broker took.

Of version 5, it reads the reason of an acknowledgement, unlike gmqtt's: Mosquitto answers 16 (no matching
subscribers) to what it drops, after a restart and before workers that share have subscribed again, and such
a message must be sent again. An acknowledgement of 3.1.1 has no reason: such a publisher cannot know.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter, deque
from random import Random
from typing import Final

import msgspec

from tests.chaos import poison
from tests.chaos.ledger import Key, Ledger, Trip, moment
from tests.support.mqtt_raw import CONNACK, PUBACK, PUBLISH, packet, read_packet, text

# Brokers take at least 20 in flight by default.
_WINDOW: Final = 20
_PATIENCE_S: Final = 10.0
_NO_SUBSCRIBERS: Final = 16


class Message(msgspec.Struct):
    """A message: the readings in it, what is bad in it, or the session and what is said of it."""

    topic: str
    payload: bytes
    keys: list[Key] = []
    bad: list[bytes] = []
    trip: str = ""
    said: frozenset[str] = frozenset()


class Publisher:
    """Publishes readings and sessions, some bad, until told to stop, then what is unacknowledged.

    `problems` lists what a publisher that sends again as it should must never see.
    """

    def __init__(
        self, port: int, name: str, ledger: Ledger, pause_s: float, seed: str, *, version: int = 5
    ) -> None:
        self._random = Random(f"{seed}/{name}")
        self._version = version
        self._trip = ""
        self._port = port
        self._name = name
        self._ledger = ledger
        self._pause_s = pause_s
        self._unacknowledged: dict[int, Message] = {}
        self._again: deque[Message] = deque()
        self._next_id = 0
        self._changed = asyncio.Event()
        self.causes: Counter[str] = Counter()
        self.problems: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop` is set and the broker has taken everything."""
        while not (stop.is_set() and not self._unacknowledged and not self._again):
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    reader, writer = await open_session(self._port, self._name, self._version)
            except (OSError, EOFError, TimeoutError) as error:
                self.causes[f"mqtt {type(error).__name__}"] += 1
                await asyncio.sleep(self._random.uniform(0.05, 0.3))
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
                message = self._again.popleft() if self._again else self.compose()
                self._next_id = self._next_id % 65_535 + 1
                self._unacknowledged[self._next_id] = message
                writer.write(publish_packet(message.topic, self._next_id, message.payload, self._version))
                await writer.drain()
                await asyncio.sleep(self._pause_s * self._random.uniform(0.5, 1.5))
            else:
                self._changed.clear()
                async with asyncio.timeout(_PATIENCE_S):
                    await self._changed.wait()
        hearing.cancel()

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                first, body = await read_packet(reader)
                if first & 0xF0 != PUBACK:
                    raise EOFError
                message = self._unacknowledged.pop(int.from_bytes(body[:2], "big"))
                reason = body[2] if len(body) > 2 else 0
                if reason == _NO_SUBSCRIBERS:
                    self.causes["mqtt no subscribers"] += 1
                    self._again.append(message)
                elif reason:
                    self.problems.append(f"the broker refused a message (reason {reason})")
                else:
                    self._note_taken(message)
                self._changed.set()

    def compose(self) -> Message:
        """Make the next message: what it is follows from the seed."""
        draw = self._random
        chance = draw.random()
        if chance < 0.02:
            return self._trip_message()
        kind = draw.choice(["meter", "vehicle"])
        topic = f"telemetry/{kind}/{self._ledger.name}-{self._name}-{kind[0]}"
        if chance < 0.03:
            return Message(topic, bad := poison.unreadable(self._ledger, self._name, draw), bad=[bad])
        if chance < 0.04:
            topic, bad = poison.foreign(self._ledger, self._name, draw)
            return Message(topic, bad, bad=[bad])
        made = [
            self._ledger.reading(self._name, kind, named=draw.random() < 0.5)
            for _ in range(draw.choice([1, 1, 1, 5]))
        ]
        parts = [msgspec.json.encode(body) for _, body in made]
        bad_parts = []
        if chance < 0.08:
            bad_parts = [poison.reading(self._ledger, self._name, kind, draw, named=draw.random() < 0.5)]
            parts.insert(draw.randrange(len(parts) + 1), bad_parts[0])
        payload = parts[0] if len(parts) == 1 else b"[" + b",".join(parts) + b"]"
        return Message(topic, payload, keys=[key for key, _ in made], bad=bad_parts)

    def _trip_message(self) -> Message:
        """Tell of a session: its end if one has begun, else the start of the next one, or all of one."""
        meter_id = f"{self._ledger.name}-{self._name}-c"
        trips = self._ledger.trips
        now = self._ledger.tick(meter_id)
        body: dict[str, str] = {}
        if self._trip and not trips[self._trip].ended_at:
            trips[self._trip].ended_at = now
        else:
            whole = self._random.random() < 0.3
            self._trip = f"{self._ledger.name}-{self._name}-{len(trips)}"
            end = self._ledger.tick(meter_id) if whole else 0
            trips[self._trip] = Trip(meter_id=meter_id, started_at=now, ended_at=end)
            body = {"startedAt": moment(now), "vehicleId": f"{self._ledger.name}-{self._name}-v"}
        if trips[self._trip].ended_at:
            body["endedAt"] = moment(trips[self._trip].ended_at)
        body["sessionId"] = self._trip
        return Message(
            f"sessions/{meter_id}", msgspec.json.encode(body), trip=self._trip, said=frozenset(body)
        )

    def _note_taken(self, message: Message) -> None:
        self._ledger.acknowledge(message.keys)
        self._ledger.refused.update(message.bad)
        if message.trip:
            trip = self._ledger.trips[message.trip]
            trip.start_taken = trip.start_taken or "startedAt" in message.said
            trip.end_taken = trip.end_taken or "endedAt" in message.said


async def open_session(
    port: int, name: str, version: int = 5
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a broker on loopback with a clean start. Raises ConnectionError when it refuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # No keep alive, since an answer is waited for only so long.
    head = text("MQTT") + bytes([version, 0x02, 0, 0]) + (b"\x00" if version == 5 else b"")
    writer.write(packet(0x10, head + text(name)))
    first, body = await read_packet(reader)
    if first & 0xF0 != CONNACK or body[1]:
        writer.transport.abort()
        raise ConnectionRefusedError(f"the broker refused the connection: {body.hex()}")
    return reader, writer


def publish_packet(topic: str | bytes, number: int, payload: bytes, version: int = 5) -> bytes:
    """Make the packet that publishes a message at QoS 1."""
    properties = b"\x00" if version == 5 else b""
    return packet(PUBLISH | 0x02, text(topic) + struct.pack(">H", number) + properties + payload)

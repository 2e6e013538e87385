"""The load: a process of its own that sends what it has made beforehand, over raw sockets.

`python -m bench.load` reads what to do as JSON from its standard input, says "ready", waits for a line,
sends, and prints what came of it as JSON. Each further line is how many readings are committed; with `ahead`
it stays at most so many readings in front of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from typing import Any, Final, cast

import uvloop

from bench import fleet, task
from bench.one_by_one import over_transactions
from tests.support.mqtt_raw import packet, text

_MQTT_HEAD: Final = b"MQTT"
# Packets that go out in one write.
_BURST: Final = 64


class Http(asyncio.Protocol):
    """One connection that asks one thing at a time."""

    def __init__(self) -> None:
        self.accepted = self.duplicates = 0
        self._rest = b""
        self._answer: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)

    async def ask(self, request: bytes) -> None:
        """Send a request; return once it is answered with success."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._answer

    def data_received(self, data: bytes) -> None:
        """Take an answer, in as many parts as it comes."""
        data = self._rest + data
        head, found, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0) if found else 0
        if not found or len(body) < length:
            self._rest = data
            return
        self._rest = b""
        if self._answer is None or not head.startswith(b"HTTP/1.1 20"):
            self._end(RuntimeError(f"{head[:200]!r} {body[:300]!r}"))
            return
        counts = json.loads(body)
        self.accepted += counts["accepted"]
        self.duplicates += counts["duplicates"]
        self._answer.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._end(exc or ConnectionError("closed"))

    def _end(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


async def over_http(spec: dict[str, Any]) -> dict[str, Any]:
    """Post batches on some connections at once as fast as they are answered, or requests at a rate."""
    readings = task.readings_of(spec)
    parts = batches(readings, spec["batch"], mixed=spec.get("mixed", False))
    if spec.get("ndjson"):
        requests = deque(request(fleet.lines(part), "application/x-ndjson") for part in parts)
    else:
        requests = deque(request(part[0].json() if len(part) == 1 else fleet.array(part)) for part in parts)
    loop = asyncio.get_running_loop()
    links = [
        (await loop.create_connection(Http, "127.0.0.1", spec["port"]))[1] for _ in range(spec["connections"])
    ]
    took: list[float] = []

    async def flat_out(link: Http) -> None:
        while requests:
            asked = time.perf_counter()
            await link.ask(requests.popleft())
            took.append(time.perf_counter() - asked)

    async def paced(link: Http) -> None:
        # From the moment that it was due: a wait for a connection counts.
        while requests:
            due = began + (total - len(requests)) / spec["rate"]
            body = requests.popleft()
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await link.ask(body)
            took.append(time.perf_counter() - due)

    total = len(requests)
    await task.go()
    began = time.perf_counter()
    await asyncio.gather(*((paced if spec.get("rate") else flat_out)(link) for link in links))
    return {
        "seconds": time.perf_counter() - began,
        "readings": len(readings),
        "accepted": sum(link.accepted for link in links),
        "duplicates": sum(link.duplicates for link in links),
        "latencies": [round(seconds, 6) for seconds in took],
    }


def request(body: bytes, content_type: str = "application/json") -> bytes:
    """Give the bytes of a request that posts a body."""
    head = "POST /v1/telemetry HTTP/1.1\r\nhost: localhost"
    return f"{head}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def batches(readings: list[fleet.Reading], size: int, *, mixed: bool) -> list[list[fleet.Reading]]:
    """Cut readings into batches in the order of time, of one kind each unless `mixed`."""
    streams = [readings] if mixed else [[r for r in readings if r.kind == kind] for kind in fleet.KINDS]
    cut = [[stream[at : at + size] for at in range(0, len(stream), size)] for stream in streams]
    return [part for parts in zip(*cut, strict=True) for part in parts]


class Publisher(asyncio.Protocol):
    """One MQTT 3.1.1 connection: an acknowledgement there has four bytes, so they are easily counted."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.acknowledged = -1
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.moved = asyncio.Event()
        self._bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who we are."""
        self.transport = cast("asyncio.Transport", transport)
        body = text(_MQTT_HEAD) + bytes([4, 2, 0, 0]) + text(self._name)
        self.transport.write(packet(0x10, body))

    def data_received(self, data: bytes) -> None:
        """Count: CONNACK and PUBACK have four bytes each."""
        self._bytes += len(data)
        self.acknowledged = self._bytes // 4 - 1
        if self.acknowledged >= 0 and not self.connected.done():
            self.connected.set_result(None)
        self.moved.set()


async def over_mqtt(spec: dict[str, Any]) -> dict[str, Any]:
    """Publish with QoS 1, some readings a message, as fast as window and commits allow, or at a rate."""
    readings = task.readings_of(spec)
    size, window = spec["batch"], spec.get("window", 2000)
    packets = messages(readings, size)
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: Publisher("bench-load"), "127.0.0.1", spec["port"])
    await link.connected
    progress = task.Progress(spec.get("ahead"))
    await task.go(progress)
    began = time.monotonic()
    sent = 0
    rate = spec.get("rate")
    while sent < len(packets):
        if rate:
            await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))
        while sent - link.acknowledged >= window:
            link.moved.clear()
            await link.moved.wait()
        await progress.wait_for(sent * size)
        many = 1 if rate else _BURST
        link.transport.write(b"".join(packets[sent : sent + many]))
        sent = min(sent + many, len(packets))
        if not rate:
            await asyncio.sleep(0)
    while link.acknowledged < len(packets):
        link.moved.clear()
        await link.moved.wait()
    return {"seconds": time.monotonic() - began, "readings": len(readings), "began": began}


def messages(readings: list[fleet.Reading], size: int) -> list[bytes]:
    """Make a PUBLISH packet of each reading; or of `size` readings of one device, one a minute."""
    parts: list[list[fleet.Reading]] = []
    if size == 1:
        parts = [[reading] for reading in readings]
    else:
        devices: dict[tuple[str, str], list[fleet.Reading]] = {}
        for reading in readings:
            devices.setdefault((reading.kind, reading.device), []).append(reading)
        parts = [own[at : at + size] for own in devices.values() for at in range(0, len(own), size)]
    found = []
    for number, part in enumerate(parts):
        topic = text(f"telemetry/{part[0].kind}/{part[0].device}")
        body = part[0].json() if size == 1 else fleet.array(part)
        found.append(packet(0x32, topic + (number % 65_535 + 1).to_bytes(2, "big") + body))
    return found


def main() -> None:
    """Do what the first line of standard input asks for."""
    spec = json.loads(sys.stdin.buffer.readline())
    work = {"http": over_http, "mqtt": over_mqtt, "transactions": over_transactions}[spec["over"]]
    result = uvloop.run(work(spec))
    # With PYTHONUNBUFFERED, print() loses what a pipe does not take at once.
    with open(sys.stdout.fileno(), "wb", closefd=False) as output:
        output.write(json.dumps({**result, "cpu_s": task.cpu_s()}).encode() + b"\n")


if __name__ == "__main__":
    main()

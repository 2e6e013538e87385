"""Clients of the live stream: a process of its own that holds some and notes when they are told of a device.

`python -m bench.listen` reads what to do as JSON from its standard input, opens streams as a browser does,
waits until each has begun and says "ready". At the end of its standard input it prints as JSON how many have
held, the bytes that came, and the moments (monotonic) at which each device whose id begins with PROBE- was
told. Some clients unpack what comes and look for that; the others only take it, or they would be the load.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
import zlib
from typing import Any, Final, cast

import uvloop

_REQUEST: Final = b"GET /v1/stream HTTP/1.1\r\nhost: localhost\r\naccept-encoding: gzip\r\n\r\n"
_HELLO: Final = b"event: hello"
_PROBE: Final = b'"PROBE-'
_GZIP: Final = 16 + zlib.MAX_WBITS
_AT_ONCE: Final = 50
# One in so many looks at what it is told.
_LOOKING: Final = 50


class Listener(asyncio.Protocol):
    """One open stream."""

    def __init__(self, told: dict[str, list[float]], *, looking: bool) -> None:
        self._told = told
        self._looking = looking
        self._rest = b""
        self._begun = False
        self._unpacker = zlib.decompressobj(_GZIP)
        self.bytes = 0
        self.lost = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(_REQUEST)

    def data_received(self, data: bytes) -> None:
        """Count what comes; look at it while that is wanted."""
        self.bytes += len(data)
        if self._looking or not self.ready.done():
            now = time.monotonic()
            self._rest += data
            while (piece := self._take()) is not None:
                self._look(self._unpacker.decompress(piece), now)

    def _take(self) -> bytes | None:
        """Give the next chunk (RFC 9112, 7.1) that is there in full."""
        if not self._begun:
            head, found, rest = self._rest.partition(b"\r\n\r\n")
            if not found or not head.startswith(b"HTTP/1.1 200 "):
                return None
            self._begun, self._rest = True, rest
        size, found, rest = self._rest.partition(b"\r\n")
        if not found or len(rest) < int(size, 16) + 2:
            return None
        self._rest = rest[int(size, 16) + 2 :]
        return rest[: int(size, 16)]

    def _look(self, told: bytes, now: float) -> None:
        if not self.ready.done() and _HELLO in told:
            self.ready.set_result(None)
        place = told.find(_PROBE)
        while place >= 0:
            name = told[place + 1 : place + 40].partition(b'"')[0].decode()
            self._told.setdefault(name, []).append(now)
            place = told.find(_PROBE, place + 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that it did not hold."""
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(exc or ConnectionError(self._rest[:300]))


async def listen(spec: dict[str, Any]) -> dict[str, Any]:
    """Hold some streams until standard input ends."""
    loop = asyncio.get_running_loop()
    told: dict[str, list[float]] = {}
    listeners: list[Listener] = []
    while len(listeners) < spec["clients"]:
        opened = []
        for number in range(len(listeners), min(len(listeners) + _AT_ONCE, spec["clients"])):
            listener = Listener(told, looking=number % _LOOKING == 0)
            await loop.create_connection(lambda made=listener: made, "127.0.0.1", spec["port"])
            opened.append(listener)
        await asyncio.gather(*(listener.ready for listener in opened))
        listeners += opened
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    began = time.process_time()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    return {
        "held": sum(not listener.lost for listener in listeners),
        "looking": -(-spec["clients"] // _LOOKING),
        "bytes": sum(listener.bytes for listener in listeners),
        "told": told,
        "cpu_s": time.process_time() - began,
    }


def main() -> None:
    """Do what the first line of standard input asks for."""
    spec = json.loads(sys.stdin.readline())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = uvloop.run(listen(spec))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

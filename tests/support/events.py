"""A client of the live stream over a raw connection."""

from __future__ import annotations

import asyncio
import json
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

from tests.support.serving import PATIENCE_S


class Event(NamedTuple):
    """A server-sent event."""

    name: str
    data: dict[str, Any]


class Listener:
    """One open stream; what comes is read only when it is asked for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.head = b""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, port: int, query: str = "", headers: str = "", *, narrow: bool = False
    ) -> AsyncIterator[Self]:
        """Ask for a stream, and read the head of the answer; a `narrow` one takes next to nothing unread."""
        sock = socket.socket()
        if narrow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096 if narrow else 2**16)
        listener = cls(reader, writer)
        try:
            writer.write(f"GET /v1/stream{query} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
            async with asyncio.timeout(PATIENCE_S):
                listener.head = await reader.readuntil(b"\r\n\r\n")
            yield listener
        finally:
            writer.close()

    @property
    def _is_packed(self) -> bool:
        return b"content-encoding: gzip" in self.head.lower()

    @property
    def status(self) -> int:
        """Give the status of the answer."""
        return int(self.head.split()[1])

    async def body(self) -> dict[str, Any]:
        """Read the body of an answer that is no stream."""
        async with asyncio.timeout(PATIENCE_S):
            length = int(self.head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            found: dict[str, Any] = json.loads(await self._reader.readexactly(length))
            return found

    async def chunk(self) -> bytes | None:
        """Read what the server has sent in one piece; None at the end of the stream."""
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        if not size:
            return None
        sent = (await self._reader.readexactly(size + 2))[:-2]
        return self._unpacker.decompress(sent) if self._is_packed else sent

    async def blocks(self) -> AsyncIterator[str]:
        """Read blocks of lines until the stream ends."""
        rest = b""
        while (piece := await self.chunk()) is not None:
            *whole, rest = (rest + piece).split(b"\n\n")
            for block in whole:
                yield block.decode()

    async def events(self) -> AsyncIterator[Event]:
        """Read events until the stream ends; other blocks are left out."""
        async for block in self.blocks():
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            if "event" in fields:
                yield Event(fields["event"], json.loads(fields["data"]))

    async def until(self, name: str, holds: Callable[[dict[str, Any]], object] = bool) -> list[Event]:
        """Read up to the first event of a name whose data are as wanted; give all that were read."""
        read = []
        async with asyncio.timeout(PATIENCE_S):
            async for event in self.events():
                read.append(event)
                if event.name == name and holds(event.data):
                    return read
        raise AssertionError(f"the stream has ended: {read}")

    async def hello(self) -> None:
        """Wait until the position is fixed."""
        await self.until("hello")

    async def states(self, *ids: str) -> dict[str, dict[str, Any]]:
        """Read until each of some devices was told of; give the newest state of each that was."""
        told: dict[str, dict[str, Any]] = {}

        def all_there(data: dict[str, Any]) -> bool:
            told.update({state["vehicleId"]: state for state in data["vehicles"]})
            told.update({state["meterId"]: state for state in data["meters"]})
            return set(ids) <= told.keys()

        await self.until("states", all_there)
        return told

    async def ended(self) -> None:
        """Wait for the end of the stream, and of the connection where it breaks off."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                async for _ in self.events():
                    pass
            except (asyncio.IncompleteReadError, ConnectionError):
                return

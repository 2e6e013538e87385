"""A TCP proxy in front of a server, which can cut connections and slow them down."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Self

# Closing with this sends a reset instead of a polite end.
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Passes bytes between whoever connects to `port` and a server on loopback.

    `delay_s` is waited before each piece is passed on, and `bytes_per_s` bounds each direction of each
    connection; None passes all at once. While `away` whoever connects is cut off at once.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.away = False

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and cut what is open."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> int:
        """Reset every connection on both sides; give how many ends there were."""
        ends = list(self._open)
        for writer in ends:
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        return len(ends)

    def lead_to(self, target: int) -> None:
        """Pass new connections on to another port."""
        self._target = target

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._open |= ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.pass_there(reader, far_writer))
                group.create_task(self.pass_on(far_reader, writer))
        except* (OSError, EOFError):
            pass
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def pass_there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what the client sends."""
        await self.pass_on(reader, writer)

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes, until it ends."""
        while piece := await reader.read(65_536):
            pause_s = self.delay_s + (len(piece) / self.bytes_per_s if self.bytes_per_s else 0.0)
            if pause_s:
                await asyncio.sleep(pause_s)
            writer.write(piece)
            await writer.drain()
        # One side has ended: so does the other, once it has what was on its way.
        if writer.can_write_eof() and not writer.transport.is_closing():
            writer.write_eof()

"""MQTT by hand: a client that may say anything, of version 3.1.1 or 5, and a proxy that listens in."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Final, Self

from tests.support import proxy as tcp

CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
PUBREC: Final = 0x50
PUBREL: Final = 0x60
PUBCOMP: Final = 0x70
SUBACK: Final = 0x90
PINGRESP: Final = 0xD0
DISCONNECT: Final = 0xE0
# Reasons of MQTT 5 (2.4).
BAD_USER_OR_PASSWORD: Final = 0x86
NOT_AUTHORISED: Final = 0x87
# What a client gets for an answer when the broker hangs up instead.
CLOSED: Final = -1
_PATIENCE_S: Final = 20


def text(value: str | bytes) -> bytes:
    """Encode a string with its length, or bytes that are none."""
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def packet(first: int, body: bytes) -> bytes:
    """Put a fixed header before a packet's body."""
    size, length = bytearray(), len(body)
    while True:
        length, part = divmod(length, 128)
        size.append(part | (0x80 if length else 0))
        if not length:
            return bytes([first]) + bytes(size) + body


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read a packet; give its first byte and its body. IncompleteReadError at the end of the stream."""
    first = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        part = (await reader.readexactly(1))[0]
        length |= (part & 0x7F) << shift
        shift += 7
        if part < 0x80:
            return first, await reader.readexactly(length)


class RawClient:
    """A client that sends what it is told to and keeps what it gets."""

    def __init__(self, port: int, *, version: int = 5, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.version = version
        self.tls = tls
        # Topics and payloads of what the broker delivered.
        self.received: list[tuple[bytes, bytes]] = []
        self._answers: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._properties = b"\x00" if version == 5 else b""
        self._last_id = 0
        self._pump: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        reader, self.writer = await asyncio.open_connection(
            "localhost", self.port, ssl=self.tls, server_hostname="localhost" if self.tls else None
        )
        self._pump = asyncio.create_task(self._keep(reader))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._pump is not None
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)
        self.writer.transport.abort()

    async def connect(
        self,
        client_id: str | bytes,
        login: tuple[str, str | None] | None = None,
        *,
        clean: bool = True,
        will: tuple[str, bytes] | None = None,
        properties: bytes = b"",
    ) -> int:
        """Send a CONNECT; give the code of the answer, CLOSED without one. `properties` go before the id."""
        user, password = login or (None, None)
        flags = (0x02 if clean else 0) | (0x2C if will else 0)
        flags |= (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
        body = text("MQTT") + bytes([self.version, flags, 0, 60])
        body += (bytes([len(properties)]) + properties) if self.version == 5 else b""
        body += text(client_id)
        if will:
            body += self._properties + text(will[0]) + text(will[1])
        body += b"".join(text(part) for part in (user, password) if part is not None)
        answer = await self.ask(packet(0x10, body))
        return answer[1][1] if answer[0] == CONNACK else CLOSED

    async def publish(
        self,
        topic: str | bytes,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: bytes = b"",
    ) -> int:
        """Publish; give the reason of the acknowledgement (0 where there is none), CLOSED without one."""
        self._last_id += 1
        number = self._last_id.to_bytes(2, "big") if qos else b""
        given = (bytes([len(properties)]) + properties) if self.version == 5 else b""
        whole = packet(PUBLISH | qos << 1 | retain, text(topic) + number + given + payload)
        if not qos:
            self.writer.write(whole)
            # The answer to a ping comes when the message before it has been handled.
            return 0 if (await self.ask(packet(0xC0, b"")))[0] == PINGRESP else CLOSED
        first, body = await self.ask(whole)
        if first == DISCONNECT:
            return CLOSED
        reason = body[2] if len(body) > 2 else 0
        if first == PUBREC and reason < 0x80:
            first, _ = await self.ask(packet(PUBREL | 2, number))
            assert first == PUBCOMP
        return reason

    async def subscribe(self, *filters: str) -> tuple[int, ...]:
        """Subscribe with QoS 1; give the code for each filter, nothing when the broker hangs up."""
        self._last_id += 1
        wanted = b"".join(text(one) + b"\x01" for one in filters)
        number = self._last_id.to_bytes(2, "big")
        first, body = await self.ask(packet(0x82, number + self._properties + wanted))
        return tuple(body[-len(filters) :]) if first == SUBACK else ()

    async def ask(self, whole: bytes) -> tuple[int, bytes]:
        """Send bytes; give the next packet that is no message, (DISCONNECT, reason) when there is none."""
        self.writer.write(whole)
        async with asyncio.timeout(_PATIENCE_S):
            return await self._answers.get()

    async def _keep(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                first, body = await read_packet(reader)
                if first & 0xF0 != PUBLISH:
                    self._answers.put_nowait((first, body))
                    continue
                end = 2 + int.from_bytes(body[:2], "big")
                rest = body[end:]
                if first & 0x06:
                    self.writer.write(packet(PUBACK, rest[:2]))
                    rest = rest[2:]
                self.received.append((body[2:end], rest[1 + rest[0] :] if self.version == 5 else rest))
        self._answers.put_nowait((DISCONNECT, b""))


class Proxy(tcp.Proxy):
    """Stands between clients and the broker, and notes what the clients send."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        # The packets of each connection, as the client sent them.
        self.sent: list[list[tuple[int, bytes]]] = []

    async def pass_there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on packet by packet what the client sends; its end is the connection's."""
        noted: list[tuple[int, bytes]] = []
        self.sent.append(noted)
        while True:
            first, body = await read_packet(reader)
            noted.append((first, body))
            writer.write(packet(first, body))


def proxy(target: int) -> Proxy:
    """Give a proxy before a broker's port, to be entered."""
    return Proxy(target)

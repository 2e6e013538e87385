"""Large answers as gzip, for clients that take it: states of 10,000 vehicles are 1.5 MB, packed a tenth."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any, Final

from litestar.types import Message, Send

from service.web.headers import header, takes_gzip

# Less goes out in a few packets anyhow.
_LEAST_BYTES: Final = 16 * 1024
# The fastest: higher levels take several times as long for a few percent.
_LEVEL: Final = 1
_TYPES: Final = (b"application/json", b"text/")
# What a stream holds is packed by itself.
_NOT: Final = b"text/event-stream"


class Packed:
    """Sends one answer on, packed if it is large, whole and text, and not packed already."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Any = None

    @classmethod
    def around(cls, send: Send, scope: Any) -> Send:
        """Give what sends to a client packed answers, if it takes such ones."""
        return cls(send) if takes_gzip(header(scope, b"accept-encoding")) else send

    async def __call__(self, message: Message) -> None:
        """Send a message, or keep the start of an answer until its body is there."""
        sent: Any = message
        if sent["type"] == "http.response.start" and _is_worth_it(sent["headers"]):
            self._start = sent
            return
        start, self._start = self._start, None
        if start is not None:
            if not sent.get("more_body"):
                # It takes some 10 ms a megabyte.
                body = await asyncio.to_thread(gzip.compress, sent["body"], _LEVEL, mtime=0)
                start["headers"] = [
                    *(pair for pair in start["headers"] if pair[0] != b"content-length"),
                    (b"content-length", b"%d" % len(body)),
                    (b"content-encoding", b"gzip"),
                    (b"vary", b"accept-encoding"),
                ]
                sent = {**sent, "body": body}
            await self._send(start)
        await self._send(sent)


def _is_worth_it(headers: Any) -> bool:
    own = dict(headers)
    kind = own.get(b"content-type", b"")
    return (
        int(own.get(b"content-length", 0)) >= _LEAST_BYTES
        and kind.startswith(_TYPES)
        and not kind.startswith(_NOT)
        and b"content-encoding" not in own
    )

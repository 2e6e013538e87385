"""What is said on streams: events as they go out, plain or packed, each made once for all who are told it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final

import msgspec

# Ten times as fast as the usual one, for a fifth more bytes.
_LEVEL: Final = 1
_RAW: Final = -zlib.MAX_WBITS
# At the head of a gzip stream (RFC 1952): deflate, no name, no time, an unknown system.
GZIP_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


class Said:
    """Some bytes of a stream, and the same for a client that takes gzip.

    They are packed as blocks of deflate that refer to nothing before them and end on a whole byte: whatever
    a client was told before, they go on with its gzip stream. Such a stream has no end, whose checksum would
    have to be counted for each client.
    """

    __slots__ = ("_packed", "plain")

    def __init__(self, plain: bytes) -> None:
        self.plain = plain
        self._packed: bytes | None = None

    def packed(self) -> bytes:
        """Give it packed."""
        if self._packed is None:
            packer = zlib.compressobj(_LEVEL, wbits=_RAW)
            self._packed = packer.compress(self.plain) + packer.flush(zlib.Z_FULL_FLUSH)
        return self._packed


def event(name: str, data: Mapping[str, object]) -> Said:
    """Word a small event."""
    return Said(b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data)))

"""Unpack gzip in steps, so that whoever asks can stop before there is too much of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from service.web.problems import Problem

STEP_BYTES: Final = 1024 * 1024
_GZIP_WBITS: Final = 16 + zlib.MAX_WBITS
_PIECE_BYTES: Final = 64 * 1024
_MEMBERS_MAX: Final = 1000


def inflate(body: bytes, max_decoded: int) -> Iterator[bytes]:
    """Give what gzip (of one or several members) unpacks to, in parts of at most `STEP_BYTES`.

    Raises Problem 413 as soon as it grows past `max_decoded` bytes, and 400 for what is no whole gzip.
    """
    room = max_decoded
    members = 1
    member = zlib.decompressobj(_GZIP_WBITS)
    # In pieces, since zlib copies what follows a member: one go would cost the square of their number.
    for start in range(0, len(body), _PIECE_BYTES):
        piece = body[start : start + _PIECE_BYTES]
        while piece:
            if member.eof:
                members += 1
                if members > _MEMBERS_MAX:
                    raise _bad_gzip(f"the body has more than {_MEMBERS_MAX} gzip members")
                member = zlib.decompressobj(_GZIP_WBITS)
            try:
                part = member.decompress(piece, min(room + 1, STEP_BYTES))
            except zlib.error:
                raise _bad_gzip("the body is not valid gzip") from None
            if len(part) > room:
                message = f"the body unpacks to more than {max_decoded} bytes: send less at once"
                raise Problem(413, "too_large", message)
            room -= len(part)
            if part:
                yield part
            piece = member.unused_data if member.eof else member.unconsumed_tail
    if body and not member.eof:
        raise _bad_gzip("the gzip body is cut off")


def _bad_gzip(message: str) -> Problem:
    return Problem(400, "bad_gzip", message, field="content-encoding")

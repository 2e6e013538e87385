"""From an HTTP request to the bytes of its payload: content type, gzip, sizes."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any, Final

from litestar import Request

from service.web.problems import Problem

_INFLATE_IN_THREAD_BYTES: Final = 256 * 1024
_GZIP_WBITS: Final = 16 + zlib.MAX_WBITS
_PIECE_BYTES: Final = 64 * 1024
_MEMBERS_MAX: Final = 1000


async def read_body(request: Request[Any, Any, Any], max_decoded: int) -> tuple[bytes, bool]:
    """Give the unpacked body, and whether it is NDJSON. Raises Problem with 400, 413 or 415.

    The size as it arrives is bounded by the server; what gzip makes of it is bounded here, while unpacking.
    """
    media_type, *parameters = request.headers.get("content-type", "application/json").lower().split(";")
    media_type = media_type.strip()
    is_lines = media_type in {"application/x-ndjson", "application/ndjson", "application/jsonl"}
    if not is_lines and media_type != "application/json" and not media_type.endswith("+json"):
        raise Problem(
            415,
            "unsupported_media_type",
            f"content type {media_type!r} is not supported: send application/json or application/x-ndjson",
            field="content-type",
        )
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('"') not in {"utf-8", "utf8", "us-ascii"}:
            raise Problem(415, "unsupported_media_type", "JSON must be UTF-8", field="content-type")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", ""}:
        raise Problem(
            415,
            "unsupported_encoding",
            f"content encoding {encoding!r}: send gzip or none",
            field="content-encoding",
        )
    body = await request.body()
    if encoding != "gzip":
        return body, is_lines
    if len(body) < _INFLATE_IN_THREAD_BYTES:
        return inflate(body, max_decoded), is_lines
    return await asyncio.to_thread(inflate, body, max_decoded), is_lines


def inflate(body: bytes, max_decoded: int) -> bytes:
    """Unpack gzip (of one or several members), stopping as soon as it grows past `max_decoded` bytes."""
    parts: list[bytes] = []
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
                part = member.decompress(piece, room + 1)
            except zlib.error:
                raise _bad_gzip("the body is not valid gzip") from None
            if len(part) > room:
                message = f"the body unpacks to more than {max_decoded} bytes: send less at once"
                raise Problem(413, "too_large", message)
            room -= len(part)
            parts.append(part)
            piece = member.unused_data if member.eof else member.unconsumed_tail
    if body and not member.eof:
        raise _bad_gzip("the gzip body is cut off")
    return b"".join(parts)


def _bad_gzip(message: str) -> Problem:
    return Problem(400, "bad_gzip", message, field="content-encoding")

"""Request bodies: from a request to bytes, within limits of type, size, time and memory, and to a struct.

Whatever is wrong with a body is a Problem that says what.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec
from litestar import Request

from service.web.headers import header
from service.web.inflate import inflate
from service.web.problems import Problem
from service.web.room import Room

StructT = TypeVar("StructT", bound=msgspec.Struct)
AnyRequest = Request[Any, Any, Any]

_LINES: Final = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii"})
_SMALL_BYTES: Final = 1024 * 1024


async def read_body(request: AnyRequest, *, most: int | None = None) -> tuple[bytes, bool]:
    """Give the unpacked body, and whether it is NDJSON. `most` bounds its size further than the settings do.

    Raises Problem 400, 408, 413, 415, or 503 where too many bodies are held at once.
    """
    is_lines = _check_type(request)
    encoding = header(request.scope, b"content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", ""}:
        raise Problem(
            415,
            "unsupported_encoding",
            f"content encoding {encoding!r}: send gzip or none",
            field="content-encoding",
            headers={"Accept-Encoding": "gzip"},
        )
    room = Room.of(request)
    limits = room.limits
    body = await _receive(request, room, limits.max_bytes if most is None else min(most, limits.max_bytes))
    if encoding == "gzip":
        decoded = limits.max_decoded if most is None else min(most, limits.max_decoded)
        body = await _unpack(body, room, decoded)
    return body, is_lines


async def read_json(request: AnyRequest, struct: type[StructT]) -> StructT:
    """Read a small JSON object into a struct. Raises what `read_body` and `decode_body` do."""
    body, is_lines = await read_body(request, most=_SMALL_BYTES)
    if is_lines:
        raise _bad_type("this address takes one JSON object: send application/json")
    return decode_body(body, struct)


def _check_type(request: AnyRequest) -> bool:
    """Tell whether the body is NDJSON. Raises Problem 415 for what is neither that nor JSON."""
    sent = header(request.scope, b"content-type", "application/json")
    media_type, *parameters = sent.lower().split(";")
    media_type = media_type.strip()
    is_lines = media_type in _LINES
    if not is_lines and media_type != "application/json" and not media_type.endswith("+json"):
        raise _bad_type(
            f"content type {media_type!r} is not supported: send application/json or application/x-ndjson"
        )
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('"') not in _CHARSETS:
            raise _bad_type("JSON must be UTF-8")
    return is_lines


def _bad_type(message: str) -> Problem:
    return Problem(415, "unsupported_media_type", message, field="content-type")


async def _receive(request: AnyRequest, room: Room, most: int) -> bytes:
    """Take the body as it arrives, and no more of it than is allowed."""
    said = header(request.scope, b"content-length")
    # Of a body in chunks it says nothing (RFC 9112, 6.3), though both may stand there.
    counts = said.isdecimal() and not header(request.scope, b"transfer-encoding")
    length = int(said) if counts else None
    if length is not None and length > most:
        raise _too_large(most)
    parts: list[bytes] = []
    size = 0
    late = False
    task = asyncio.current_task()

    def give_up() -> None:
        nonlocal late
        late = task is not None and task.cancel()

    # `asyncio.timeout` takes a tenth of our time for a request with one reading.
    timer = asyncio.get_running_loop().call_later(room.limits.timeout_s, give_up)
    try:
        while True:
            message = await request.receive()
            if message["type"] != "http.request":
                raise Problem(400, "incomplete_body", "the body ended before it was complete")
            if part := message.get("body", b""):
                size += len(part)
                if size > most:
                    raise _too_large(most)
                await room.take(len(part))
                parts.append(part)
            # The server says only with one message more that there is no more, a turn of the loop later.
            if size == length or not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)
    except asyncio.CancelledError:
        if not late:
            raise
        why = f"the body did not arrive within {room.limits.timeout_s:g} s: send less at once"
        raise Problem(408, "body_timeout", why, headers={"Connection": "close"}) from None
    finally:
        timer.cancel()


def _too_large(most: int) -> Problem:
    return Problem(413, "too_large", f"the body has more than {most} bytes: send less at once")


async def _unpack(body: bytes, room: Room, most: int) -> bytes:
    """Unpack gzip; what is large beside the event loop, so that others are not kept waiting."""
    steps = inflate(body, most)
    parts: list[bytes] = []
    while part := await _next(steps, large=bool(parts)):
        await room.take(len(part))
        parts.append(part)
    return b"".join(parts)


async def _next(steps: Iterator[bytes], *, large: bool) -> bytes:
    return await asyncio.to_thread(next, steps, b"") if large else next(steps, b"")


def decode_body(body: bytes, struct: type[StructT]) -> StructT:
    """Decode a JSON object into a struct.

    Raises Problem 400. When the object does not fit, each field is decoded by itself, so that it is the
    field's own type that says which one is to blame, not the text of an error.
    """
    try:
        try:
            return msgspec.json.decode(body, type=struct)
        except msgspec.ValidationError:
            # Looking for the field may find that the rest is no JSON at all.
            problem = _blame(body, struct)
    except RecursionError:
        raise Problem(400, "too_deep", "the body is nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise Problem(400, "malformed_json", f"the body is not valid JSON: {error}") from None
    raise problem


def _blame(body: bytes, struct: type[msgspec.Struct]) -> Problem:
    try:
        raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return Problem(400, "wrong_shape", "the body must be a JSON object")
    for field in msgspec.structs.fields(struct):
        name = field.encode_name
        if name not in raw:
            if field.required:
                return Problem(400, "missing", f'"{name}" is missing', field=name)
            continue
        try:
            msgspec.json.decode(raw[name], type=field.type)
        except (msgspec.ValidationError, UnicodeDecodeError) as error:
            return Problem(400, "bad_value", f'"{name}" is not valid: {error}', field=name)
    known = {field.encode_name for field in msgspec.structs.fields(struct)}
    # A name that was mistyped must not count as left out.
    unknown = sorted(set(raw) - known)
    if unknown and struct.__struct_config__.forbid_unknown_fields:
        name = unknown[0][:100]
        message = f"there is no field {name!r}; there are {', '.join(sorted(known))}"
        return Problem(400, "unknown_field", message, field=name)
    return Problem(400, "wrong_shape", "the body does not fit together: is a field in it twice?")

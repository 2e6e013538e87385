"""Bytes to readings or rejections: pure, strict, and one bad reading never hides a good one.

A payload is one JSON reading, an array of readings, {"readings": [...]}, or NDJSON. The usual payload,
in which all is well, is decoded by msgspec in one call. Only when that fails is each reading looked at
by itself, and only a reading that fails is taken apart field by field to name the one to blame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import msgspec

from service.ingest.explain import explain
from service.ingest.outcome import Decoded, Rejection
from service.ingest.shapes import METER, SHAPES, UNREADABLE, VEHICLE, Shape, of_both_kinds
from service.readings import Kind, Reading, TimeRule, Window, kind_of

_WHITESPACE: Final = b" \t\n\r"
_OBJECT, _ARRAY = 0x7B, 0x5B
_INLINE_BYTES: Final = 64 * 1024
# More than these nobody sends who has no more readings than allowed.
_LINES_A_READING: Final = 4
_VALUES_A_READING: Final = 20
_VALUES_MIN: Final = 100_000


class _Envelope(msgspec.Struct):
    readings: list[msgspec.Raw]


class _HasReadings(msgspec.Struct):
    readings: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_RAW_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_HAS_READINGS: Final = msgspec.json.Decoder(_HasReadings)


def decode(
    body: bytes,
    rule: TimeRule | Window,
    *,
    kind: Kind | None = None,
    topic_id: str | None = None,
    max_readings: int = 50_000,
) -> Decoded:
    """Decode a JSON payload; never raises for what is in it.

    `kind` limits it to one kind of reading; without it each reading's own id field tells. `topic_id` is
    the identity that the transport vouches for (the MQTT topic): a reading may leave its id out, and an
    id that differs is refused.
    """
    start = body.lstrip(_WHITESPACE)[:1]
    if not start:
        return _unreadable(
            body, "empty_body", "the payload is empty: send a JSON reading or an array of them"
        )
    try:
        if start[0] == _ARRAY:
            return _decode_array(body, None, rule, kind, topic_id, max_readings)
        if start[0] == _OBJECT:
            if (reading := _decode_plain(body, rule, kind, topic_id)) is not None:
                return _good(body, [reading], single=True)
            if _HAS_READINGS.decode(body).readings is msgspec.UNSET:
                return _finish([body], body, rule, kind, topic_id, single=True)
            if _too_many_values(body, max_readings):
                return _too_many(body, None, max_readings)
            return _decode_array(body, _ENVELOPE.decode(body).readings, rule, kind, topic_id, max_readings)
        msgspec.json.decode(body)
    except msgspec.ValidationError:
        return _unreadable(body, "wrong_shape", '"readings" must be an array of readings', "readings")
    except RecursionError:
        return _unreadable(body, "too_deep", "the payload is nested too deeply")
    except UNREADABLE as error:
        return _unreadable(body, "malformed_json", f"the payload is not valid JSON: {error}")
    return _unreadable(
        body, "wrong_shape", 'expected a reading, an array of readings, or {"readings": [...]}'
    )


def is_large(body: bytes) -> bool:
    """Tell whether decoding a body, all of it bad readings, could take too long for the event loop."""
    return len(body) >= _INLINE_BYTES


async def beside(body: bytes, decoding: Callable[[], Decoded]) -> Decoded:
    """Run a decoding of `body`, in a thread if it is large.

    Tens of thousands of bad readings, which are taken apart one by one, would hold up everybody else for a
    second.
    """
    return await asyncio.to_thread(decoding) if is_large(body) else decoding()


def decode_lines(
    body: bytes, rule: TimeRule | Window, *, kind: Kind | None = None, max_readings: int = 50_000
) -> Decoded:
    """Decode NDJSON, one reading a line; blank lines are skipped and do not count in the indices."""
    if body.count(b"\n") > _LINES_A_READING * max_readings:
        return _too_many(body, body.count(b"\n"), max_readings)
    lines = _split_lines(body)
    if not lines:
        return _unreadable(body, "empty_body", "the payload holds no lines: send one JSON reading a line")
    if len(lines) > max_readings:
        return _too_many(body, len(lines), max_readings)
    # No line break within a reading has this look: what follows its `}` there never begins with `{`.
    if all(line[:1] == b"{" and line[-1:] == b"}" for line in map(bytes.strip, lines)):
        readings = _at_once(body, rule, kind, None, lines=True)
        if readings is not None and len(readings) == len(lines):
            return _good(body, readings, lines=True)
    return _finish(lines, body, rule, kind, None, lines=True)


def raw_part(decoded: Decoded, index: int) -> bytes:
    """Give the bytes of one reading of a payload that was decoded before, by its place in it."""
    if decoded.parts is None:
        decoded.parts = _split(decoded)
    return decoded.parts[index]


def _split(decoded: Decoded) -> list[bytes]:
    if decoded.single:
        return [decoded.body]
    if decoded.lines:
        return _split_lines(decoded.body)
    if decoded.body.lstrip(_WHITESPACE)[0] == _ARRAY:
        return [bytes(part) for part in _RAW_LIST.decode(decoded.body)]
    return [bytes(part) for part in _ENVELOPE.decode(decoded.body).readings]


def _split_lines(body: bytes) -> list[bytes]:
    return [line for line in body.split(b"\n") if line.strip(_WHITESPACE)]


def _decode_array(
    body: bytes,
    parts: list[msgspec.Raw] | None,
    rule: TimeRule | Window,
    kind: Kind | None,
    topic_id: str | None,
    max_readings: int,
) -> Decoded:
    """Decode an array: in one call where every reading in it is good."""
    if parts is None:
        readings = _at_once(body, rule, kind, topic_id, lines=False)
        if readings and len(readings) <= max_readings:
            return _good(body, readings)
        if _too_many_values(body, max_readings):
            return _too_many(body, None, max_readings)
        parts = _RAW_LIST.decode(body)
    if not parts:
        return _unreadable(body, "empty_batch", "the array holds no readings")
    if len(parts) > max_readings:
        return _too_many(body, len(parts), max_readings)
    return _finish(parts, body, rule, kind, topic_id)


def _finish(
    parts: Iterable[bytes | msgspec.Raw],
    body: bytes,
    rule: TimeRule | Window,
    kind: Kind | None,
    topic_id: str | None,
    *,
    single: bool = False,
    lines: bool = False,
) -> Decoded:
    """Decode part by part, and sort what comes out into readings and rejections."""
    decoded = Decoded(body=body, readings=[], indices=[], rejections=[], single=single, lines=lines)
    earliest, latest = rule.window()
    for index, part in enumerate(parts):
        result = _decode_one(bytes(part), index, kind, topic_id)
        if not isinstance(result, Rejection):
            if earliest <= result.recorded_at <= latest:
                decoded.readings.append(result)
                decoded.indices.append(index)
                continue
            result = _out_of_time(result, bytes(part), index, latest)
        decoded.rejections.append(result)
    return decoded


def _decode_plain(
    body: bytes, rule: TimeRule | Window, kind: Kind | None, topic_id: str | None
) -> Reading | None:
    """Decode a payload that is one good reading, as nearly all are over MQTT, at once; None for any other."""
    # Where the name does not occur, however written, it need not be looked for as JSON.
    if b"readings" in body or (kind is None and _may_name_both(body)) or b"\\" in body:
        return None
    try:
        reading = (SHAPES[kind] if kind else _guess(body)).one(body)
    except UNREADABLE:
        return None
    return reading if _all_good([reading], rule, topic_id) else None


def _decode_one(part: bytes, index: int, kind: Kind | None, topic_id: str | None) -> Reading | Rejection:
    shape = SHAPES[kind] if kind else _guess(part)
    if kind is not None or not _may_name_both(part):
        try:
            reading = shape.one(part)
        except UNREADABLE:
            pass
        else:
            if topic_id is None or reading.device_id == topic_id:
                return reading
    return explain(part, index, kind, topic_id)


def _out_of_time(reading: Reading, part: bytes, index: int, latest: datetime) -> Rejection:
    ahead = reading.recorded_at > latest
    return Rejection(
        index=index,
        code="future_timestamp" if ahead else "too_old",
        message='"timestamp" lies in the future: check the device\'s clock'
        if ahead
        else '"timestamp" is older than what is kept',
        field="timestamp",
        kind=kind_of(reading),
        device_id=reading.device_id,
        raw=part,
    )


def _at_once(
    body: bytes, rule: TimeRule | Window, kind: Kind | None, topic_id: str | None, *, lines: bool
) -> list[Reading] | None:
    """Decode an array or lines in one call; None unless every reading is good."""
    try:
        if kind is None and _may_name_both(body):
            readings = of_both_kinds(body, lines=lines)
        else:
            readings = (SHAPES[kind] if kind else _guess(body)).many(body, lines=lines)
    except UNREADABLE:
        return None
    return readings if _all_good(readings, rule, topic_id) else None


def _all_good(readings: list[Reading], rule: TimeRule | Window, topic_id: str | None) -> bool:
    earliest, latest = rule.window()
    return all(
        earliest <= reading.recorded_at <= latest and (topic_id is None or reading.device_id == topic_id)
        for reading in readings
    )


def _good(body: bytes, readings: list[Reading], *, single: bool = False, lines: bool = False) -> Decoded:
    """Give a payload all of which is good."""
    indices = list(range(len(readings)))
    return Decoded(body=body, readings=readings, indices=indices, rejections=[], single=single, lines=lines)


def _guess(body: bytes) -> Shape:
    """Guess the kind from the bytes; a wrong guess only costs the slow way."""
    return VEHICLE if b'"vehicleId"' in body else METER


def _may_name_both(body: bytes) -> bool:
    """Tell whether both id names may occur: mixed kinds, or a reading that claims to be both.

    A name may be written with escapes. No reading needs any.
    """
    return b"\\" in body or (b'"meterId"' in body and b'"vehicleId"' in body)


def _unreadable(body: bytes, code: str, message: str, field: str | None = None) -> Decoded:
    rejection = Rejection(index=0, code=code, message=message, field=field, raw=body)
    return Decoded(body=body, readings=[], indices=[], rejections=[rejection], whole=True)


def _too_many_values(body: bytes, max_readings: int) -> bool:
    """Tell whether an array may have so many elements that taking them apart would fill the memory.

    64 MiB of `{},` took 1.5 GiB and two seconds before they could be counted.
    """
    return body.count(b",") > max(_VALUES_A_READING * max_readings, _VALUES_MIN)


def _too_many(body: bytes, count: int | None, limit: int) -> Decoded:
    """Refuse a payload for the number of its readings, or (None) before they are counted."""
    said = "too many values" if count is None else f"{count} readings"
    message = f"{said} in one payload; at most {limit} readings are allowed: split it"
    return _unreadable(body, "too_many_readings", message)

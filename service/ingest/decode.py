"""Bytes to readings or rejections: pure, strict, and one bad reading never hides a good one.

A payload is one JSON reading, an array of readings, {"readings": [...]}, or NDJSON. The usual payload,
in which all is well, is decoded by msgspec in one call. Only when that fails is each reading looked at
by itself, and only a reading that fails is taken apart field by field to name the one to blame.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, cast

import msgspec

from service.ingest.outcome import Decoded, Rejection
from service.readings import Kind, MeterReading, Reading, TimeRule, VehicleReading

_WHITESPACE: Final = b" \t\n\r"
_OBJECT, _ARRAY = 0x7B, 0x5B

# What msgspec and Python raise for bytes that are no JSON of the wanted type, or are nested too deeply.
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class _Envelope(msgspec.Struct):
    readings: list[msgspec.Raw]


class _HasReadings(msgspec.Struct):
    readings: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Field(msgspec.Struct, frozen=True):
    """One field of a reading: its JSON name, and decoders with and without the rules on its value."""

    name: str
    bounds: str
    strict: msgspec.json.Decoder[Any]
    loose: msgspec.json.Decoder[Any]


class _Shape:
    """How readings of one kind are decoded, whole and, to explain a refusal, by field."""

    def __init__(self, kind: Kind, struct: type[MeterReading | VehicleReading], id_name: str) -> None:
        self.kind = kind
        self.struct = struct
        self.id_name = id_name
        self.one: msgspec.json.Decoder[Reading] = msgspec.json.Decoder(struct)
        self.many: msgspec.json.Decoder[list[Reading]] = msgspec.json.Decoder(list[struct])  # type: ignore[valid-type]
        self.fields = [
            _Field(
                field.encode_name,
                _bounds(field.type),
                msgspec.json.Decoder(field.type),
                msgspec.json.Decoder(_bare(field.type)),
            )
            for field in msgspec.structs.fields(struct)
        ]


def _bare(annotated: Any) -> type:
    """Give the plain type below Annotated: str, float or datetime."""
    return cast("type", annotated.__origin__)


def _bounds(annotated: Any) -> str:
    """Word the range that the type allows, empty where it has none."""
    ranges = [rule for rule in annotated.__metadata__ if rule.ge is not None and rule.le is not None]
    return f"from {ranges[0].ge:g} to {ranges[0].le:g}" if ranges else ""


_METER: Final = _Shape("meter", MeterReading, "meterId")
_VEHICLE: Final = _Shape("vehicle", VehicleReading, "vehicleId")
_SHAPES: Final[dict[Kind, _Shape]] = {"meter": _METER, "vehicle": _VEHICLE}
_RAW_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_RAW_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENVELOPE: Final = msgspec.json.Decoder(_Envelope)
_HAS_READINGS: Final = msgspec.json.Decoder(_HasReadings)

_WORDS: Final = {str: "a string", float: "a finite number", datetime: "an RFC 3339 timestamp with a zone"}


def decode(
    body: bytes,
    rule: TimeRule,
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
            if _HAS_READINGS.decode(body).readings is msgspec.UNSET:
                return _finish([body], body, rule, kind, topic_id, single=True)
            return _decode_array(body, _ENVELOPE.decode(body).readings, rule, kind, topic_id, max_readings)
        msgspec.json.decode(body)
    except msgspec.ValidationError:
        return _unreadable(body, "wrong_shape", '"readings" must be an array of readings', "readings")
    except RecursionError:
        return _unreadable(body, "too_deep", "the payload is nested too deeply")
    except _UNREADABLE as error:
        return _unreadable(body, "malformed_json", f"the payload is not valid JSON: {error}")
    return _unreadable(
        body, "wrong_shape", 'expected a reading, an array of readings, or {"readings": [...]}'
    )


def decode_lines(
    body: bytes, rule: TimeRule, *, kind: Kind | None = None, max_readings: int = 50_000
) -> Decoded:
    """Decode NDJSON, one reading a line; blank lines are skipped and do not count in the indices."""
    lines = _split_lines(body)
    if not lines:
        return _unreadable(body, "empty_body", "the payload holds no lines: send one JSON reading a line")
    if len(lines) > max_readings:
        return _too_many(body, len(lines), max_readings)
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
    rule: TimeRule,
    kind: Kind | None,
    topic_id: str | None,
    max_readings: int,
) -> Decoded:
    """Decode an array: in one call where every reading in it is good and of one kind."""
    if parts is None:
        shape = _SHAPES[kind] if kind else _guess(body)
        if kind is not None or not _names_both(body):
            try:
                readings = shape.many.decode(body)
            except _UNREADABLE:
                pass
            else:
                if readings and len(readings) <= max_readings and _all_good(readings, rule, topic_id):
                    indices = list(range(len(readings)))
                    return Decoded(body=body, readings=readings, indices=indices, rejections=[])
        parts = _RAW_LIST.decode(body)
    if not parts:
        return _unreadable(body, "empty_batch", "the array holds no readings")
    if len(parts) > max_readings:
        return _too_many(body, len(parts), max_readings)
    return _finish(parts, body, rule, kind, topic_id)


def _finish(
    parts: Iterable[bytes | msgspec.Raw],
    body: bytes,
    rule: TimeRule,
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


def _decode_one(part: bytes, index: int, kind: Kind | None, topic_id: str | None) -> Reading | Rejection:
    shape = _SHAPES[kind] if kind else _guess(part)
    if kind is not None or not _names_both(part):
        try:
            reading = shape.one.decode(part)
        except _UNREADABLE:
            pass
        else:
            if topic_id is None or reading.device_id == topic_id:
                return reading
    return _explain(part, index, kind, topic_id)


def _explain(part: bytes, index: int, kind: Kind | None, topic_id: str | None) -> Reading | Rejection:
    """Decode field by field: slower, but it names the field to blame and can take the id from the topic."""
    try:
        raw = _RAW_OBJECT.decode(part)
        shape = _SHAPES[kind] if kind else _tell(raw)
    except _Refusal as refusal:
        return refusal.rejection(part, index, None, topic_id)
    except msgspec.ValidationError:
        return _Refusal("wrong_shape", "a reading must be a JSON object").rejection(
            part, index, kind, topic_id
        )
    except RecursionError:
        return _Refusal("too_deep", "the reading is nested too deeply").rejection(part, index, kind, topic_id)
    except _UNREADABLE as error:
        message = f"the reading is not valid JSON: {error}"
        return _Refusal("malformed_json", message).rejection(part, index, kind, topic_id)
    values: list[Any] = []
    device_id = topic_id
    try:
        for field in shape.fields:
            is_id = field.name == shape.id_name
            values.append(_field_value(field, raw, topic_id if is_id else None))
            if is_id:
                device_id = values[-1]
    except _Refusal as refusal:
        return refusal.rejection(part, index, shape.kind, device_id)
    return shape.struct(*values)


class _Refusal(Exception):  # noqa: N818 - ends the decoding of one reading, never leaves this file
    """Why a reading is refused, and which field is to blame."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field

    def rejection(self, part: bytes, index: int, kind: Kind | None, device_id: str | None) -> Rejection:
        return Rejection(
            index=index,
            code=self.code,
            message=self.message,
            field=self.field,
            kind=kind,
            device_id=device_id,
            raw=part,
        )


def _tell(raw: dict[str, msgspec.Raw]) -> _Shape:
    """Tell the kind of a reading by its id field."""
    named = [shape for shape in (_METER, _VEHICLE) if shape.id_name in raw]
    if not named:
        raise _Refusal("missing", 'a reading needs "meterId" or "vehicleId"', "meterId")
    if len(named) > 1:
        raise _Refusal("ambiguous", 'a reading has either "meterId" or "vehicleId", not both', "vehicleId")
    return named[0]


def _field_value(field: _Field, raw: dict[str, msgspec.Raw], topic_id: str | None) -> Any:
    """Decode one field; `topic_id` is the identity that an id field may leave out but not contradict."""
    if field.name not in raw:
        if topic_id is not None:
            return topic_id
        raise _Refusal("missing", f'"{field.name}" is missing', field.name)
    try:
        value = field.strict.decode(raw[field.name])
    except _UNREADABLE:
        raise _blame(field, raw[field.name]) from None
    if topic_id is not None and value != topic_id:
        message = f'"{field.name}" is {value!r}, but the topic belongs to {topic_id!r}'
        raise _Refusal("id_mismatch", message, field.name)
    return value


def _blame(field: _Field, raw: msgspec.Raw) -> _Refusal:
    """Tell a value of the wrong type from one of the right type that breaks a rule."""
    plain = cast("type", field.loose.type)
    name = field.name
    try:
        field.loose.decode(raw)
    except _UNREADABLE:
        return _Refusal("wrong_type", f'"{name}" must be {_WORDS[plain]}', name)
    if plain is str:
        return _Refusal("bad_id", f'"{name}" must be 1 to 64 characters of A-Z a-z 0-9 . _ : -', name)
    if plain is datetime:
        message = f'"{name}" has no zone: write it as 2026-01-31T12:00:00Z or with +01:00'
        return _Refusal("naive_timestamp", message, name)
    return _Refusal("out_of_range", f'"{name}" must be a number {field.bounds}', name)


def _out_of_time(reading: Reading, part: bytes, index: int, latest: datetime) -> Rejection:
    ahead = reading.recorded_at > latest
    return Rejection(
        index=index,
        code="future_timestamp" if ahead else "too_old",
        message='"timestamp" lies in the future: check the device\'s clock'
        if ahead
        else '"timestamp" is older than what is kept',
        field="timestamp",
        kind="meter" if isinstance(reading, MeterReading) else "vehicle",
        device_id=reading.device_id,
        raw=part,
    )


def _all_good(readings: list[Reading], rule: TimeRule, topic_id: str | None) -> bool:
    earliest, latest = rule.window()
    return all(
        earliest <= reading.recorded_at <= latest and (topic_id is None or reading.device_id == topic_id)
        for reading in readings
    )


def _guess(body: bytes) -> _Shape:
    """Guess the kind from the bytes; a wrong guess only costs the slow way."""
    return _VEHICLE if b'"vehicleId"' in body else _METER


def _names_both(body: bytes) -> bool:
    """Tell whether both id names occur: mixed kinds, or a reading that claims to be both."""
    return b'"meterId"' in body and b'"vehicleId"' in body


def _unreadable(body: bytes, code: str, message: str, field: str | None = None) -> Decoded:
    rejection = Rejection(index=0, code=code, message=message, field=field, raw=body)
    return Decoded(body=body, readings=[], indices=[], rejections=[rejection], whole=True)


def _too_many(body: bytes, count: int, limit: int) -> Decoded:
    message = f"{count} readings in one payload; at most {limit} are allowed: split it"
    return _unreadable(body, "too_many_readings", message)

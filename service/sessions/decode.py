"""Payloads of sessions/{meterId} to messages about sessions: pure, strict, and a mistake names its field."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

import msgspec

from service.readings import DeviceId, TimeRule, Timestamp
from service.sessions.model import SessionId, TimeFault, check_times, derived_id

_TOPIC: Final = re.compile(r"sessions/(?P<id>[A-Za-z0-9._:\-]{1,64})")


class Message(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A message as it is sent: a start with its vehicle and time, an end, or both at once."""

    meter_id: DeviceId | None = None
    session_id: SessionId | None = None
    vehicle_id: DeviceId | None = None
    started_at: Timestamp | None = None
    ended_at: Timestamp | None = None


class Unusable(Exception):  # noqa: N818 - told as a dead letter, not as an error
    """Raised for a payload that is no message about a session: a code, a message, the field to blame."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field


_FIELDS: Final = msgspec.structs.fields(Message)
_TIMES: Final = frozenset({"startedAt", "endedAt"})


def meter_of(topic: str) -> str | None:
    """Give the meter that a topic names, if it can be one."""
    match = _TOPIC.fullmatch(topic)
    return match["id"] if match else None


def decode(topic: str, payload: bytes, rule: TimeRule) -> Message:
    """Read a message; its meter is the topic's, and a start without an id gets one that follows from it.

    An end that names no session has no id, and none has a vehicle. Raises Unusable.
    """
    meter_id = meter_of(topic)
    if meter_id is None:
        words = "with an id of 1 to 64 characters of A-Z a-z 0-9 . _ : -"
        raise Unusable("unknown_topic", f"the topic must be sessions/{{meterId}}, {words}", "topic")
    message = _read(payload)
    if message.meter_id not in {None, meter_id}:
        raise Unusable("id_mismatch", f'"meterId" must be the topic\'s, {meter_id}', "meterId")
    if message.started_at is None:
        if message.ended_at is None:
            raise Unusable("missing", '"startedAt" or "endedAt" must be there', "startedAt")
    elif message.vehicle_id is None:
        raise Unusable("missing", '"vehicleId" is missing', "vehicleId")
    _check(message.started_at, message.ended_at, rule)
    if message.started_at is None:
        # The session that it ends knows its vehicle.
        return msgspec.structs.replace(message, meter_id=meter_id, vehicle_id=None)
    known = message.session_id or derived_id(str(message.vehicle_id), meter_id, message.started_at)
    return msgspec.structs.replace(message, meter_id=meter_id, session_id=known)


def _check(started_at: datetime | None, ended_at: datetime | None, rule: TimeRule) -> None:
    _, latest = rule.window()
    try:
        check_times(started_at, ended_at)
    except TimeFault as fault:
        raise Unusable("out_of_range", fault.message, fault.field) from None
    for name, moment in (("startedAt", started_at), ("endedAt", ended_at)):
        if moment is not None and moment > latest:
            raise Unusable(
                "future_timestamp", f'"{name}" lies in the future: check the device\'s clock', name
            )


def _read(payload: bytes) -> Message:
    if not payload.strip(b" \t\n\r"):
        raise Unusable("empty_body", "the payload is empty: send a JSON start or end of a session")
    try:
        try:
            return msgspec.json.decode(payload, type=Message)
        except msgspec.ValidationError:
            # What comes after the first mistake was not read yet, and may be no JSON.
            raise _blame(payload) from None
    except RecursionError:
        raise Unusable("too_deep", "the payload is nested too deeply") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise Unusable("malformed_json", f"the payload is not valid JSON: {error}") from None


def _blame(payload: bytes) -> Unusable:
    """Name the field that does not fit, with the code that a reading would get: a type tells, not a text."""
    try:
        raw = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return Unusable("wrong_shape", "the payload must be one JSON object")
    for field in _FIELDS:
        if field.encode_name in raw and not _fits(raw[field.encode_name], field.type):
            return _fault(field.encode_name, raw[field.encode_name])
    return Unusable("wrong_shape", "the payload does not fit together")


def _fault(name: str, raw: msgspec.Raw) -> Unusable:
    """Tell a value of the wrong type from one of the right type that breaks a rule."""
    if name in _TIMES:
        if _fits(raw, datetime):
            message = f'"{name}" has no zone: write it as 2026-01-31T12:00:00Z or with +01:00'
            return Unusable("naive_timestamp", message, name)
        return Unusable("wrong_type", f'"{name}" must be an RFC 3339 timestamp with a zone', name)
    if _fits(raw, str):
        return Unusable("bad_id", f'"{name}" must be 1 to 64 characters of A-Z a-z 0-9 . _ : -', name)
    return Unusable("wrong_type", f'"{name}" must be a string', name)


def _fits(raw: msgspec.Raw, wanted: Any) -> bool:
    try:
        msgspec.json.decode(raw, type=wanted)
    except (msgspec.ValidationError, UnicodeDecodeError):
        return False
    return True

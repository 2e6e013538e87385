"""Payloads of sessions/{meterId}: any bytes give a message or a reason, and good ones come out as sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ingest.decode import decode as decode_readings
from service.sessions.decode import Message, Unusable, decode, meter_of
from service.sessions.model import derived_id
from tests.support.strategies import NOW, RULE, at, device_ids, json_values, pure, rfc3339, timestamps, zones

_NAMES = ["meterId", "sessionId", "vehicleId", "startedAt", "endedAt", "extra"]
near_messages = st.dictionaries(
    st.sampled_from(_NAMES), json_values | device_ids | timestamps.map(rfc3339), max_size=6
)


def code(payload: Any, topic: str = "sessions/m-1") -> tuple[str, str | None]:
    """Give the reason to refuse a payload."""
    body = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    with pytest.raises(Unusable) as caught:
        decode(topic, body, RULE)
    assert caught.value.message
    return caught.value.code, caught.value.field


@pure
@given(st.binary() | near_messages.map(msgspec.json.encode), device_ids)
def test_any_bytes(payload: bytes, meter: str) -> None:
    """Whatever comes is a message that can be used, or is refused with a code; nothing else is raised."""
    try:
        message = decode(f"sessions/{meter}", payload, RULE)
    except Unusable as refused:
        assert refused.code  # noqa: PT017 - either outcome is right
        assert refused.message  # noqa: PT017
        return
    assert message.meter_id == meter
    assert (message.vehicle_id is None) == (message.started_at is None)
    assert message.started_at or message.ended_at
    assert message.session_id is not None or message.started_at is None


@pytest.mark.parametrize("name", ["sessionId", "vehicleId"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [("a b", "bad_id"), ("", "bad_id"), ("x" * 65, "bad_id"), (5, "wrong_type"), (["m"], "wrong_type")],
)
def test_ids_that_do_not_fit(name: str, value: Any, expected: str) -> None:
    """They get the codes of readings, and so does the meter of the payload."""
    good = {"vehicleId": "v", "startedAt": rfc3339(NOW)}
    assert code(good | {name: value}) == (expected, name)
    assert code(good | {"meterId": value}) == (expected, "meterId")


@pytest.mark.parametrize("name", ["startedAt", "endedAt"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-31T12:00:00", "naive_timestamp"),
        ("2026-01-31T12:00:00.5", "naive_timestamp"),
        ("2026-01-31", "wrong_type"),
        ("2026-02-30T12:00:00Z", "wrong_type"),
        ("soon", "wrong_type"),
        (1769860800, "wrong_type"),
        ({}, "wrong_type"),
    ],
)
def test_times_that_do_not_fit(name: str, value: Any, expected: str) -> None:
    """A time without a zone is told from what is no time at all, as for readings."""
    assert code({"vehicleId": "v", "startedAt": rfc3339(NOW), name: value}) == (expected, name)
    reading = {"meterId": "m", "timestamp": value, "kwhConsumedAc": 0.1, "voltage": 230}
    [rejection] = decode_readings(msgspec.json.encode(reading), RULE, kind="meter").rejections
    assert rejection.code == expected


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"vehicleId": 5, ', "malformed_json"),
        (b'{"vehicleId": 5, "\xff": 1}', "malformed_json"),
        (b'{"vehicleId": 5, "endedAt": "\xff"}', "wrong_type"),
        (b'{"vehicleId": ' + b"[" * 100_000, "too_deep"),
        (b'{"vehicleId": 5, "x": ' + b"[" * 100_000, "too_deep"),
    ],
)
def test_a_second_mistake_after_the_first(payload: bytes, expected: str) -> None:
    """What comes after a field that does not fit may be no JSON: a reason to refuse it, and no defect."""
    assert code(payload)[0] == expected


@pure
@given(st.data(), near_messages)
def test_messages_that_are_cut_off(data: st.DataObject, message: dict[str, Any]) -> None:
    """A message of which the end is missing, or with a byte of garbage in it, is refused with a code."""
    payload = msgspec.json.encode(message)
    cut = data.draw(st.integers(0, len(payload)))
    try:
        decode("sessions/m-1", payload[:cut] + data.draw(st.binary(max_size=2)), RULE)
    except Unusable as refused:
        assert refused.code  # noqa: PT017 - either outcome is right


@pure
@given(device_ids, device_ids, st.none() | device_ids, timestamps, st.integers(1, 10**6), zones)
def test_good_messages_come_out_as_sent(
    meter: str, vehicle: str, session: str | None, over: datetime, seconds: int, zone: Any
) -> None:
    """A start, an end and a whole session, in any zone; a start without an id gets the one that follows."""
    start, end = over - timedelta(seconds=seconds), over.astimezone(zone)
    named = {} if session is None else {"sessionId": session}
    topic = f"sessions/{meter}"

    def read(**fields: Any) -> Message:
        return decode(topic, msgspec.json.encode(named | fields), RULE)

    own = session or derived_id(vehicle, meter, start)
    begun = Message(meter_id=meter, session_id=own, vehicle_id=vehicle, started_at=start)
    assert read(vehicleId=vehicle, startedAt=start) == begun
    assert read(vehicleId=vehicle, startedAt=start, endedAt=None, meterId=meter, more=[1]) == begun
    whole = msgspec.structs.replace(begun, ended_at=end)
    assert read(vehicleId=vehicle, startedAt=start, endedAt=end) == whole
    ended = Message(meter_id=meter, session_id=session, ended_at=end)
    assert read(endedAt=end) == read(endedAt=end, vehicleId="whoever") == ended


@pytest.mark.parametrize(
    "topic", ["sessions/", "sessions/a b", "sessions/" + "x" * 65, "sessions/a/b", "session/a", "sessions/ä"]
)
def test_topics_of_no_meter(topic: str) -> None:
    """A topic that names no meter is refused, whatever the payload."""
    assert meter_of(topic) is None
    assert code({"endedAt": rfc3339(NOW)}, topic) == ("unknown_topic", "topic")


def test_times() -> None:
    """A clock may be some minutes ahead, not more; an end lies after its start; a date is on the calendar."""
    good = {"vehicleId": "v", "startedAt": rfc3339(NOW)}
    ahead = RULE.window()[1]
    assert decode("sessions/m", msgspec.json.encode({"endedAt": ahead}), RULE).ended_at == ahead
    late = ahead + timedelta(microseconds=1)
    assert code({"endedAt": late}) == ("future_timestamp", "endedAt")
    assert code(good | {"startedAt": late}) == ("future_timestamp", "startedAt")
    assert code(good | {"endedAt": rfc3339(NOW)}) == ("out_of_range", "endedAt")
    assert code(good | {"endedAt": rfc3339(at(-1))}) == ("out_of_range", "endedAt")
    old = datetime(1899, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert code(good | {"startedAt": old}) == ("out_of_range", "startedAt")

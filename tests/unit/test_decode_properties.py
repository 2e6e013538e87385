"""Decoding: what must hold for any readings, any JSON and any bytes."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from service.ingest.decode import decode, decode_lines, raw_part
from service.ingest.outcome import Decoded
from service.readings import DeviceId, Kind, MeterReading, Reading, VehicleReading, ids_are_good, kind_of
from tests.support import strategies
from tests.support.strategies import RULE, altered, encode, json_array, meter, pure, vehicle

kinds = st.sampled_from([None, "meter", "vehicle"])
anything = strategies.readings | strategies.bad_readings() | strategies.near_readings
topic_ids = st.none() | st.just("m-1") | strategies.device_ids


def assert_partition(result: Decoded, count: int) -> None:
    """Check that each of `count` places is either a reading or a refusal, once."""
    assert len(result.readings) == len(result.indices)
    places = sorted([*result.indices, *(rejection.index for rejection in result.rejections)])
    assert places == list(range(count))


@pure
@given(st.lists(strategies.readings, min_size=1, max_size=6))
def test_round_trip(sent: list[Reading]) -> None:
    """What is encoded comes back equal, in order, by every shape of payload."""
    lines = b"\n".join(map(msgspec.json.encode, sent))
    for result in (
        decode(encode(*sent), RULE),
        decode(msgspec.json.encode({"readings": sent}), RULE),
        decode_lines(lines, RULE),
    ):
        assert (result.readings, result.rejections) == (sent, [])
        assert result.indices == list(range(len(sent)))


near_ids = (
    st.text(st.sampled_from('aZ09._:-,[]"\\\n\0 \x7fé€𐍈'), max_size=3) | strategies.device_ids | st.text()
)


@given(st.lists(near_ids, max_size=4))
def test_ids_are_good(ids: list[str]) -> None:
    """Many ids at once are found good exactly where each character of theirs makes an id."""

    def is_good(text: str) -> bool:
        with suppress(msgspec.ValidationError):
            return bool(msgspec.convert(text, DeviceId))
        return False

    assert ids_are_good(ids) == all(map(is_good, "".join(ids)))


@pure
@given(near_ids, strategies.readings)
def test_a_bad_id_gets_in_by_no_shape(text: str, other: Reading) -> None:
    """Whatever is around it: COPY is made of ids that hold nothing to escape."""
    try:
        msgspec.convert(text, DeviceId)
        found = text
    except msgspec.ValidationError:
        found = None
    for sent in (altered(meter(), meterId=text), altered(vehicle(), vehicleId=text)):
        array = json_array([sent, other])
        one = msgspec.json.encode(sent)
        for result in (
            decode(array, RULE),
            decode(array, RULE, kind=kind_of(other)),
            decode(b'{"readings":' + array + b"}", RULE),
            decode_lines(one + b"\n" + msgspec.json.encode(other), RULE),
            decode(one, RULE),
            decode(json_array([sent]), RULE, topic_id="m-1"),
        ):
            assert {reading.device_id for reading in result.readings} <= {found, other.device_id}


@pure
@given(st.lists(anything, min_size=1, max_size=8), kinds, topic_ids)
def test_each_part_is_a_reading_or_a_refusal(
    parts: list[Any], kind: Kind | None, topic_id: str | None
) -> None:
    """Of an array of anything, each element comes out exactly once, and as it does alone."""
    result = decode(json_array(parts), RULE, kind=kind, topic_id=topic_id)
    assert_partition(result, len(parts))
    for index, part in enumerate(parts):
        alone = decode(json_array([part]), RULE, kind=kind, topic_id=topic_id)
        kept = [
            reading for reading, place in zip(result.readings, result.indices, strict=True) if place == index
        ]
        why = [(r.code, r.field) for r in result.rejections if r.index == index]
        assert kept == alone.readings
        assert why == [(r.code, r.field) for r in alone.rejections]


@pure
@given(st.lists(strategies.readings, min_size=1, max_size=6), strategies.bad_readings(), st.data())
def test_one_bad_element_changes_nothing_for_the_others(
    sent: list[Reading], bad: object, data: st.DataObject
) -> None:
    """The quick way and the careful way agree: the good readings are the same with and without a bad one."""
    place = data.draw(st.integers(0, len(sent)))
    result = decode(json_array([*sent[:place], bad, *sent[place:]]), RULE)
    assert [rejection.index for rejection in result.rejections] == [place]
    assert result.readings == decode(encode(*sent), RULE).readings == sent
    assert [decode(msgspec.json.encode(reading), RULE).readings for reading in sent] == [[r] for r in sent]


@pure
@given(st.binary(max_size=64) | strategies.torn_payloads(), kinds, topic_ids)
def test_any_bytes_are_decoded_or_refused(body: bytes, kind: Kind | None, topic_id: str | None) -> None:
    """No bytes raise, and nothing that was refused as a whole also gives readings."""
    for result in (decode(body, RULE, kind=kind, topic_id=topic_id), decode_lines(body, RULE, kind=kind)):
        assert result.readings or result.rejections
        if result.whole:
            assert (result.readings, len(result.rejections)) == ([], 1)
        else:
            assert_partition(result, len(result.readings) + len(result.rejections))


@pure
@given(strategies.json_values | strategies.near_readings, kinds)
def test_any_json_is_decoded_or_refused(value: object, kind: Kind | None) -> None:
    """No JSON raises, and none of it is called malformed."""
    result = decode(json.dumps(value).encode(), RULE, kind=kind)
    assert result.readings or result.rejections
    assert "malformed_json" not in [rejection.code for rejection in result.rejections]


@pure
@given(st.lists(strategies.readings, min_size=1, max_size=5), st.sampled_from([b"\n", b"\r\n", b"\n \n"]))
def test_raw_part_gives_the_bytes_of_a_reading(sent: list[Reading], end: bytes) -> None:
    """The bytes of a place decode to the reading of that place, in every shape of payload."""
    array = encode(*sent)
    payloads = [
        decode(array, RULE),
        decode(b'{"n": 1, "readings": ' + array + b"}", RULE),
        decode_lines(end.join(map(msgspec.json.encode, sent)), RULE),
        decode(b" " + msgspec.json.encode(sent[0]), RULE),
        decode(encode(*sent, {"meterId": 1}), RULE),
    ]
    for result in payloads:
        for reading, index in zip(result.readings, result.indices, strict=True):
            assert decode(raw_part(result, index), RULE).readings == [reading]
    assert isinstance(sent[0], MeterReading | VehicleReading)

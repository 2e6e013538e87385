"""Decoding: every reason to refuse by example, and what must hold for any bytes as properties."""

from __future__ import annotations

import asyncio
import json
import math
import string
import tracemalloc
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ingest.decode import beside, decode, decode_lines, raw_part
from service.ingest.outcome import Decoded, Rejection
from service.readings import Kind, MeterReading, Reading, TimeRule, VehicleReading
from tests.support import strategies
from tests.support.strategies import NOW, RULE, altered, as_json, encode, json_array, meter, pure, vehicle

GOOD_METER: Final = msgspec.json.encode(meter())
GOOD_VEHICLE: Final = msgspec.json.encode(vehicle())
DEEP: Final = 100_000


def refused(body: bytes | dict[str, Any], **options: Any) -> Rejection:
    """Decode what must give one refusal and nothing else."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    result = decode(raw, RULE, **options)
    assert result.readings == []
    assert result.indices == []
    [rejection] = result.rejections
    return rejection


def codes(result: Decoded) -> list[tuple[int, str, str | None]]:
    """Give the refusals of a payload: place, code and field."""
    return [(rejection.index, rejection.code, rejection.field) for rejection in result.rejections]


@pytest.mark.parametrize("body", [b"", b" ", b"\r\n\t "])
def test_empty_body(body: bytes) -> None:
    """A payload of nothing but white space is refused as a whole."""
    result = decode(body, RULE)
    assert (codes(result), result.whole) == ([(0, "empty_body", None)], True)
    assert codes(decode_lines(body, RULE)) == [(0, "empty_body", None)]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[",
        b"}",
        b"nul",
        b"NaN",
        b"[NaN]",
        b"{'meterId': 1}",
        GOOD_METER[:-1],
        GOOD_METER + b"x",
        b"[" + GOOD_METER + b",]",
        b"[" + GOOD_METER + b"] []",
        GOOD_METER.replace(b"0.1", b"NaN"),
        GOOD_METER.replace(b"0.1", b"Infinity"),
        GOOD_METER.replace(b"0.1", b"01"),
        GOOD_METER.replace(b"0.1", b".1"),
        b"\xff\xfe" + GOOD_METER,
        "{}".encode("utf-16"),
        b"\xef\xbb\xbf" + GOOD_METER,
        b"\x00",
        b"\x1f\x8b\x08\x00",
    ],
)
def test_malformed_json(body: bytes) -> None:
    """What is no JSON (RFC 8259: UTF-8, no BOM, no NaN) is refused as a whole, with its bytes kept."""
    result = decode(body, RULE)
    assert (codes(result), result.whole) == ([(0, "malformed_json", None)], True)
    assert result.rejections[0].raw == body


def test_text_that_is_not_utf8_is_refused_in_any_field() -> None:
    """Bytes that are not UTF-8 in a field of ours are refused; the good neighbour is kept."""
    bad = GOOD_METER.replace(b"m-1", b"m-\xff")
    assert decode(bad, RULE).readings == []
    result = decode(b"[" + GOOD_VEHICLE + b"," + bad + b"]", RULE)
    assert (result.readings, result.indices) == ([vehicle()], [0])
    assert [rejection.index for rejection in result.rejections] == [1]


@pytest.mark.parametrize(
    "body",
    [b"1", b'"reading"', b"null", b"true", b'{"readings": null}', b'{"readings": {}}', b'{"readings": 1}'],
)
def test_wrong_shape(body: bytes) -> None:
    """JSON that is neither a reading nor an array of them is refused as a whole."""
    result = decode(body, RULE)
    assert [rejection.code for rejection in result.rejections] == ["wrong_shape"]
    assert result.whole


@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        b'{"readings":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b"[" + GOOD_METER[:-1] + b',"extra":' + b"[" * DEEP + b"]" * DEEP + b"}]",
    ],
)
def test_too_deep(body: bytes) -> None:
    """Brackets nested by the hundred thousand are refused and do not end the process."""
    assert [rejection.code for rejection in decode(body, RULE).rejections] == ["too_deep"]
    [line] = decode_lines(body, RULE).rejections
    assert line.code == ("too_deep" if body.startswith(b"{") else "wrong_shape")


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b'{"readings": []}'])
def test_empty_batch(body: bytes) -> None:
    """An array of no readings is refused as a whole."""
    result = decode(body, RULE)
    assert (codes(result), result.whole) == ([(0, "empty_batch", None)], True)


@pytest.mark.parametrize("kind", [None, "meter"])
@pytest.mark.parametrize("last", [GOOD_METER, b"5"])
def test_too_many_readings(kind: Kind | None, last: bytes) -> None:
    """One more than the limit refuses the whole payload, in every shape; the limit itself is fine."""
    for count in (3, 4):
        parts = [GOOD_METER] * (count - 1) + [last]
        array = b"[" + b",".join(parts) + b"]"
        results = [
            decode(array, RULE, kind=kind, max_readings=3),
            decode(b'{"readings":' + array + b"}", RULE, kind=kind, max_readings=3),
            decode_lines(b"\n".join(parts), RULE, kind=kind, max_readings=3),
        ]
        too_many = [
            [rejection.code for rejection in result.rejections] == ["too_many_readings"] for result in results
        ]
        assert too_many == [count == 4] * 3
        assert [result.whole for result in results] == too_many


@pytest.mark.parametrize("reading", [meter(), vehicle()])
def test_missing(reading: Reading) -> None:
    """Each field is required, and the missing one is named."""
    kind: Kind = "meter" if isinstance(reading, MeterReading) else "vehicle"
    for name in as_json(reading):
        rejection = refused(altered(reading, **{name: ...}), kind=kind)
        assert (rejection.code, rejection.field, rejection.kind) == ("missing", name, kind)
    assert refused({"voltage": 1}).code == "missing"


@pytest.mark.parametrize("kind", ["meter", "vehicle"])
def test_the_other_kind_lacks_the_id(kind: Kind) -> None:
    """Where one kind is expected, a reading of the other lacks the id."""
    body = GOOD_VEHICLE if kind == "meter" else GOOD_METER
    rejection = refused(body, kind=kind)
    assert (rejection.code, rejection.field) == ("missing", f"{kind}Id")


@pytest.mark.parametrize("value", ["0.1", "", True, False, None, [], {}, [0.1]])
@pytest.mark.parametrize("reading", [meter(), vehicle()])
def test_wrong_type_of_a_number(reading: Reading, value: object) -> None:
    """A number is a JSON number, never a string, a boolean or null."""
    numbers = [name for name, good in as_json(reading).items() if isinstance(good, float)]
    for name in numbers:
        rejection = refused(altered(reading, **{name: value}))
        assert (rejection.code, rejection.field, rejection.index) == ("wrong_type", name, 0)


@pytest.mark.parametrize("literal", [b"1e999", b"-1e999", b"1" + b"0" * 400])
def test_a_number_beyond_floating_point(literal: bytes) -> None:
    """A number that no float can hold is not finite, so it is no number of ours."""
    rejection = refused(GOOD_METER.replace(b"0.1", literal))
    assert (rejection.code, rejection.field) == ("wrong_type", "kwhConsumedAc")


@pytest.mark.parametrize("value", [1, 1.5, True, None, [], {}])
def test_wrong_type_of_an_id(value: object) -> None:
    """An id is a string."""
    rejection = refused(altered(meter(), meterId=value))
    assert (rejection.code, rejection.field) == ("wrong_type", "meterId")


@pytest.mark.parametrize(
    "value",
    [1_769_860_800, 1.5, True, None, [], "", "now", "2026-01-31", "12:00:00Z", "2026-02-30T12:00:00Z",
     "2026-01-31T25:00:00Z", "2026-01-31T12:00Z ", "31.01.2026 12:00", "0000-01-01T00:00:00Z"],
)  # fmt: skip
def test_wrong_type_of_a_timestamp(value: object) -> None:
    """A timestamp is a string in RFC 3339, and a date that exists."""
    rejection = refused(altered(vehicle(), timestamp=value))
    assert (rejection.code, rejection.field, rejection.device_id) == ("wrong_type", "timestamp", "v-1")


BOUNDS: Final = [
    ("meter", "kwhConsumedAc", 0, 1000),
    ("meter", "voltage", 0, 1000),
    ("vehicle", "soc", 0, 100),
    ("vehicle", "kwhDeliveredDc", 0, 1000),
    ("vehicle", "batteryTemp", -60, 150),
]


@pytest.mark.parametrize(("kind", "name", "low", "high"), BOUNDS)
def test_out_of_range(kind: Kind, name: str, low: float, high: float) -> None:
    """Both bounds are included, as integers too; the next number beyond is refused and the range is said."""
    reading: Reading = meter() if kind == "meter" else vehicle()
    for value in (low, high, float(low), float(high)):
        [stored] = decode(encode(altered(reading, **{name: value})), RULE).readings
        assert as_json(stored)[name] == value
    for beyond in (math.nextafter(low, -math.inf), math.nextafter(high, math.inf), low - 1, high + 1, 1e300):
        rejection = refused(altered(reading, **{name: beyond}))
        assert (rejection.code, rejection.field, rejection.kind) == ("out_of_range", name, kind)
        assert f"{low}" in rejection.message
        assert f"{high}" in rejection.message


@pytest.mark.parametrize(
    "value",
    ["", "a" * 65, "a b", "a/b", "a\n", "\n", "a\0", "é", "٣", "a%20", "a+b", "a,b", "a\\b", "😀", " a"],
)
def test_bad_id(value: str) -> None:
    """An id is 1 to 64 characters of the alphabet, to the very end."""
    for reading, name in ((meter(), "meterId"), (vehicle(), "vehicleId")):
        rejection = refused(altered(reading, **{name: value}))
        assert (rejection.code, rejection.field) == ("bad_id", name)


def test_good_ids() -> None:
    """Every character of the alphabet is fine, and so are 1 and 64 characters."""
    alphabet = string.ascii_letters + string.digits + "._:-"
    for value in ("a", "-", "a" * 64, alphabet[:33], alphabet[33:]):
        assert decode(encode(meter(value)), RULE).readings == [meter(value)]


@pytest.mark.parametrize(
    "value", ["2026-01-31T12:00:00", "2026-01-31T12:00:00.123456", "2026-01-31t12:00:00"]
)
def test_naive_timestamp(value: str) -> None:
    """A timestamp without a zone is refused by a code of its own."""
    rejection = refused(altered(meter(), timestamp=value))
    assert (rejection.code, rejection.field) == ("naive_timestamp", "timestamp")


def test_zones_are_one_moment() -> None:
    """Any zone of RFC 3339 is taken, and the moment is what counts."""
    for value in ("2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", "2026-01-31T06:30:00-05:30"):
        assert decode(encode(altered(meter(), timestamp=value)), RULE).readings == [meter()]


def test_future_timestamp_at_the_edge() -> None:
    """Five minutes ahead is fine; a microsecond more is the future, alone and in an array."""
    edge, beyond = (meter(minute=5), altered(meter(), timestamp=NOW + timedelta(minutes=5, microseconds=1)))
    assert decode(encode(edge), RULE).readings == [edge]
    assert decode(msgspec.json.encode(edge), RULE).readings == [edge]
    rejection = refused(beyond)
    assert (rejection.code, rejection.field, rejection.device_id) == ("future_timestamp", "timestamp", "m-1")
    assert codes(decode(encode(edge, beyond), RULE)) == [(1, "future_timestamp", "timestamp")]
    far = altered(meter(), timestamp="9999-12-31T23:59:59.999999-23:59")
    assert refused(far).code == "future_timestamp"


def test_too_old_at_the_edge() -> None:
    """Where an age is set, a reading of exactly that age is fine and a microsecond more is too old."""
    rule = TimeRule(behind_s=86_400, now=NOW.timestamp)
    edge = meter(minute=-1440)
    beyond = altered(meter(), timestamp=NOW - timedelta(days=1, microseconds=1))
    result = decode(encode(edge, beyond), rule)
    assert (result.readings, codes(result)) == ([edge], [(1, "too_old", "timestamp")])
    assert decode(encode(beyond), RULE).rejections == []
    assert codes(decode(encode(altered(meter(), timestamp="0001-01-01T00:00:00+23:59")), RULE)) == [
        (0, "too_old", "timestamp")
    ]


def test_id_under_a_topic() -> None:
    """Under a topic the id may be absent or equal; another one is refused."""
    for body in (altered(meter(), meterId=...), altered(meter())):
        result = decode(msgspec.json.encode(body), RULE, kind="meter", topic_id="m-1")
        assert (result.readings, result.rejections) == ([meter()], [])
    different = refused(altered(meter("m-2")), kind="meter", topic_id="m-1")
    assert (different.code, different.field, different.device_id) == ("id_mismatch", "meterId", "m-1")
    bad = refused(altered(meter(), meterId="m 1"), kind="meter", topic_id="m-1")
    assert (bad.code, bad.device_id) == ("bad_id", "m-1")


def test_ids_under_a_topic_in_an_array() -> None:
    """Each reading of an array is held against the topic by itself."""
    body = encode(meter(), meter("m-2"), altered(meter(minute=1), meterId=...), meter(minute=2))
    result = decode(body, RULE, kind="meter", topic_id="m-1")
    assert result.readings == [meter(), meter(minute=1), meter(minute=2)]
    assert (result.indices, codes(result)) == ([0, 2, 3], [(1, "id_mismatch", "meterId")])


def test_ambiguous() -> None:
    """A reading that claims to be of both kinds is refused where the kind is not given."""
    both = altered(meter()) | altered(vehicle())
    rejection = refused(both)
    assert (rejection.code, rejection.field) == ("ambiguous", "vehicleId")
    assert decode(encode(both), RULE, kind="meter").readings == [meter()]


def test_unknown_fields_are_ignored() -> None:
    """Fields that are not ours change nothing, whatever is in them, even the other kind's id as a value."""
    extra = {"firmware": "1.2", "meta": {"a": [1, None]}, "soc": "x", "note": '"vehicleId"', "": 0}
    body = altered(meter(), **extra)
    for payload in (
        msgspec.json.encode(body),
        encode(body),
        msgspec.json.encode({"readings": [body], "n": 1}),
    ):
        result = decode(payload, RULE)
        assert (result.readings, result.rejections) == ([meter()], [])


def test_unknown_fields_take_no_memory() -> None:
    """A refused reading with any number of them costs what its bytes cost, not an object for each name."""
    body = b"{" + b",".join(b'"%x":0' % number for number in range(200_000)) + b"}"
    for payload in (body, b"[" + body[:1_000_000].rpartition(b",")[0] + b"}]"):
        tracemalloc.start()
        try:
            assert refused(payload).code == "missing"
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 3 * len(payload)


def test_escaped_field_names_are_the_same_names() -> None:
    r"""A name written with \u escapes is the same name."""
    body = GOOD_VEHICLE.replace(b'"vehicleId"', rb'"vehicl\u0065Id"')
    assert decode(body, RULE).readings == [vehicle()]
    assert decode(b"[" + body + b"," + GOOD_METER + b"]", RULE).readings == [vehicle(), meter()]


def test_shapes_give_the_same_readings() -> None:
    """An array, an envelope and NDJSON with any line ends and blank lines hold the same readings."""
    parts = [GOOD_METER, GOOD_VEHICLE, msgspec.json.encode(meter(minute=1))]
    expected = [meter(), vehicle(), meter(minute=1)]
    array = b"[" + b",".join(parts) + b"]"
    payloads = [decode(array, RULE), decode(b' {"readings" : ' + array + b"} ", RULE)]
    payloads += [
        decode_lines(end.join(parts) + tail, RULE)
        for end in (b"\n", b"\r\n", b"\n\n", b"\r\n \t\r\n")
        for tail in (b"", b"\n", b"\r\n")
    ]
    for result in payloads:
        assert (result.readings, result.indices, result.single) == (expected, [0, 1, 2], False)
    single = decode(b"\n " + GOOD_METER + b"\r\n", RULE)
    assert (single.readings, single.single, single.whole) == ([meter()], True, False)


def test_a_line_is_a_reading_and_nothing_else() -> None:
    """A line of NDJSON that holds an array or no JSON is refused by its place, and the others are kept."""
    lines = [GOOD_METER, b"[" + GOOD_METER + b"]", b"{", b"null", GOOD_VEHICLE]
    result = decode_lines(b"\n".join(lines), RULE)
    assert result.indices == [0, 4]
    assert codes(result) == [(1, "wrong_shape", None), (2, "malformed_json", None), (3, "wrong_shape", None)]
    assert [rejection.raw for rejection in result.rejections] == lines[1:4]


def test_indices_with_good_and_bad_mixed() -> None:
    """Refusals carry their place, kind, device and own bytes; what is good keeps its place."""
    bad = altered(vehicle("v-7"), soc=101)
    body = encode(meter(), bad, vehicle(), {"meterId": "m-9"}, meter(minute=1))
    result = decode(body, RULE)
    assert (result.readings, result.indices) == ([meter(), vehicle(), meter(minute=1)], [0, 2, 4])
    assert codes(result) == [(1, "out_of_range", "soc"), (3, "missing", "timestamp")]
    first, second = result.rejections
    assert (first.kind, first.device_id, msgspec.json.decode(first.raw)) == (
        "vehicle", "v-7", msgspec.to_builtins(bad),
    )  # fmt: skip
    assert (second.kind, second.device_id, second.raw) == ("meter", "m-9", b'{"meterId":"m-9"}')


# --- properties ------------------------------------------------------------------------------------------

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


def test_large_payloads_hold_up_nobody() -> None:
    """A payload of bad readings, each of which is taken apart, is decoded beside everything else."""
    body = b"[" + b",".join([b"{}"] * 49_999) + b"]"

    async def live() -> tuple[Decoded, int]:
        turns = 0
        decoding = asyncio.create_task(beside(body, lambda: decode(body, RULE)))
        while not decoding.done():
            await asyncio.sleep(0)
            turns += 1
        return decoding.result(), turns

    decoded, turns = asyncio.run(live())
    assert len(decoded.rejections) == 49_999
    assert turns > 10

"""Decoding the fields of a reading: every reason to refuse one, by example, and what stands at the edges."""

from __future__ import annotations

import math
import string
import tracemalloc
from datetime import timedelta
from typing import Final

import msgspec
import pytest

from service.ingest.decode import decode
from service.readings import Kind, MeterReading, Reading, TimeRule
from tests.support.decoding import GOOD_METER, GOOD_VEHICLE, codes, refused
from tests.support.strategies import NOW, RULE, altered, as_json, encode, meter, vehicle


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

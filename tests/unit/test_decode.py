"""Decoding payloads: their shapes, what is refused as a whole, and where each reading of many stands."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import pytest

from service.ingest.decode import beside, decode, decode_lines
from service.ingest.outcome import Decoded
from service.readings import Kind
from tests.support.decoding import GOOD_METER, GOOD_VEHICLE, codes
from tests.support.strategies import RULE, altered, encode, meter, vehicle

DEEP: Final = 100_000


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

"""Payloads to try: good ones, almost good ones, and bytes damaged with a knowledge of the grammar.

All of it follows from one `Random`, so the number of an input is enough to make it again.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

NOW: Final = datetime(2026, 1, 31, 12, tzinfo=UTC)
_ID_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-"

# Written as they stand into the JSON, where a value or a name belongs.
RAW_VALUES: Final = [
    b"1e400", b"-1e400", b"1e-400", b"-0", b"-0.0", b"0e0", b"5e-324",
    b"2.2250738585072011e-308", b"NaN", b"Infinity", b"-Infinity", b"nan",
    b"1000", b"1000.0000000000001", b"1000.00000000000000000001",
    b"999.99999999999999999999999999", b"100.00000000000001", b"-60",
    b"-60.00000000000001", b"01", b"1.", b".5", b"+1", b"1e", b"1e+",
    b"0x10", b"1_000", b"9" * 400, b"0." + b"0" * 400 + b"1", b"9" * 5000,
    b"18446744073709551616", b"-9223372036854775809", b"true", b"null",
    b"[]", b"{}", b'""', b'"1"', b"''", b"tru", b"nul", b'"\\ud800"',
    b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\\u0041"',
    b'"a\\u000a"', b'"\\q"', b'"\\', b'"\\u12"', b'"\xff"', b'"\xc3\x28"',
    b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\x00"', b'"a\tb"',
    b'"a\\tb"', b'"m-1\\n"', b'"m-1\n"', b'"\xef\xbb\xbf"',
    b'"' + b"a" * 64 + b'"', b'"' + b"a" * 65 + b'"', '"ünï"'.encode(),
    '"Ａ"'.encode(), '"m\u0661"'.encode(),  # noqa: RUF001 - look-alikes
]  # fmt: skip
TIMES: Final = [
    "2026-01-31T12:00:00Z", "2026-01-31T12:04:59.999999Z",
    "2026-01-31T12:05:00Z", "2026-01-31T12:05:00.000001Z",
    "2026-01-31 11:00:00Z", "2026-01-31t11:00:00z",
    "2026-01-31T11:00:00+00:00", "2026-01-31T11:00:00-00:00",
    "2026-01-31T23:59:00+23:59", "2026-01-31T11:00:00+24:00",
    "2026-01-31T11:00:00-23:59", "2026-01-31T11:00:00+14:60",
    "2026-01-31T11:00:00+0100", "2026-01-31T11:00:00+01",
    "2026-01-31T11:00:00", "2026-01-31T11:00Z", "2026-01-31",
    "2016-12-31T23:59:60Z", "2026-01-31T24:00:00Z", "2026-02-29T00:00:00Z",
    "2024-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-10T00:00:00Z",
    "2026-01-00T00:00:00Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00-23:59",
    "0001-01-02T00:00:00Z", "0001-01-02T00:00:00+00:01",
    "1969-12-31T23:59:59.999999Z", "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59-23:59",
    "10000-01-01T00:00:00Z", "-001-01-01T00:00:00Z",
    "2026-01-31T11:00:00.Z", "2026-01-31T11:00:00.123456789Z",
    "2026-01-31T11:00:00.9999995Z",
    "2026-01-31T11:00:00.5555555555555555555555555Z",
    "2026-01-31T11:00:00,5Z", "20260131T110000Z", "2026-W05-6T11:00:00Z",
    " 2026-01-31T11:00:00Z", "2026-01-31T11:00:00Z ",
    "٢٠٢٦-01-31T11:00:00Z", "infinity", "epoch", "now", "1769860800", "",
]  # fmt: skip
_TOKENS: Final = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\n", b"\r", b"\x00",
    b"\xff", b"\xef\xbb\xbf", b" ", b"\t", b"-", b"e", b".", b"0", b"null",
    b'"meterId"', b'"vehicleId"', b'"readings"', b'"timestamp"', b"\\u",
    b"\\ud83d", b"//", b"/*", b'{"readings":', b"[[", b"}}",
    b"\xe2\x80\xa8", b"\x1f\x8b\x08",
]  # fmt: skip


def reading(rng: Random) -> dict[str, Any]:
    """Give a good reading as JSON."""
    name = "".join(rng.choices(_ID_LETTERS, k=rng.choice((1, 3, 8, 63, 64))))
    moment = NOW - timedelta(microseconds=rng.randrange(10**13))
    if rng.random() < 0.5:
        moment = moment.replace(microsecond=0)
    stamp = moment.isoformat().replace("+00:00", "Z")
    kwh = rng.choice((0, 0.0, 1000, rng.random(), rng.uniform(0, 1000), 5e-324))
    if rng.random() < 0.5:
        return {"meterId": name, "kwhConsumedAc": kwh, "voltage": rng.uniform(0, 1000), "timestamp": stamp}
    return {
        "vehicleId": name,
        "soc": rng.choice((0, 100, rng.uniform(0, 100))),
        "kwhDeliveredDc": kwh,
        "batteryTemp": rng.choice((-60, 150, -0.0, rng.uniform(-60, 150))),
        "timestamp": stamp,
    }


def _value(rng: Random) -> bytes:
    """Give something that stands where a value belongs."""
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(RAW_VALUES)
    if kind < 5:
        return json.dumps(rng.choice(TIMES), ensure_ascii=False).encode()
    if kind == 5:
        depth = rng.choice((1, 3, 50, 2000)) if rng.random() < 0.1 else 3
        return rng.choice((b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth))
    if kind == 6:
        return json.dumps(rng.uniform(-2000, 2000)).encode()
    return b'"' + bytes(rng.randrange(256) for _ in range(rng.randrange(12))) + b'"'


def _object(rng: Random, pairs: list[tuple[bytes, bytes]]) -> bytes:
    space = rng.choice((b"", b"", b" ", b"\n", b"\t\r\n "))
    return b"{" + (b"," + space).join(name + b":" + space + value for name, value in pairs) + b"}"


def one(rng: Random) -> bytes:
    """Give the bytes of one reading: most often good, else spoilt in one or several places."""
    good = reading(rng)
    pairs = [(json.dumps(name).encode(), json.dumps(value).encode()) for name, value in good.items()]
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3))):
        place = rng.randrange(len(pairs))
        what = rng.randrange(7)
        if what < 3:
            pairs[place] = pairs[place][0], _value(rng)
        elif what == 3:
            del pairs[place]
        elif what == 4:  # a name twice
            pairs.insert(
                rng.randrange(len(pairs) + 1), (pairs[place][0], rng.choice((pairs[place][1], _value(rng))))
            )
        elif what == 5:
            pairs.append(
                (
                    rng.choice((b'"extra"', b'"meterId"', b'"vehicleId"', b'""', b'"\\u006deterId"')),
                    _value(rng),
                )
            )
        else:
            rng.shuffle(pairs)
        if not pairs:
            break
    return _object(rng, pairs)


def many(rng: Random) -> list[bytes]:
    """Give a few readings; the usual payload has one kind and nothing wrong with it."""
    count = rng.choice((0, 1, 1, 2, 3, 5, 20))
    if rng.random() < 0.3:
        return [json.dumps(reading(rng)).encode() for _ in range(count)]
    return [one(rng) if rng.random() < 0.9 else _value(rng) for _ in range(count)]


def payload(rng: Random, *, lines: bool = False) -> bytes:
    """Give a payload: one reading, an array, an envelope or lines; half of them damaged."""
    if lines:
        body = rng.choice((b"\n", b"\r\n", b"\n\n", b"\n \n")).join(many(rng))
    else:
        shape = rng.randrange(3)
        if shape == 0:
            body = one(rng)
        else:
            body = b"[" + b",".join(many(rng)) + b"]"
            if shape == 2:
                pairs = [(b'"readings"', body)]
                if rng.random() < 0.2:
                    pairs.insert(rng.randrange(2), (rng.choice((b'"readings"', b'"x"')), _value(rng)))
                body = _object(rng, pairs)
    return mutated(rng, body) if rng.random() < 0.5 else body


def mutated(rng: Random, body: bytes) -> bytes:
    """Damage bytes: cut off, cut out, doubled, flipped, with tokens put in, or in another encoding."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        start = rng.randrange(len(body) + 1)
        end = min(len(body), start + rng.choice((1, 2, 8, 40)))
        what = rng.randrange(16)
        if what < 2:
            body = body[:start]
        elif what < 4:
            body = body[:start] + body[end:]
        elif what < 6:
            body = body[:end] + body[start:]
        elif what < 10:
            body = body[:start] + rng.choice(_TOKENS) + body[start if what < 8 else end :]
        elif what < 13 and start < len(body):
            body = body[:start] + bytes([body[start] ^ (1 << rng.randrange(8))]) + body[start + 1 :]
        elif what == 13:
            body = body[:start] + rng.randbytes(end - start) + body[end:]
        elif what == 14:
            body = rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b" ", b"\x00", b"\n", b",")) + body
        elif rng.random() < 0.2:
            text = body.decode("latin-1")
            body = text.encode(rng.choice(("utf-16", "utf-16-be", "utf-32", "utf-7")))
    return body

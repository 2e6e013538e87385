"""What must hold of every answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from service.ingest.decode import decode, raw_part
from service.ingest.outcome import Decoded, Rejection
from service.ingest.streams import rows, values
from service.readings import Kind, MeterReading, Reading, TimeRule
from service.web.problems import Problem
from tests.fuzz import oracle
from tests.fuzz.payloads import NOW

RULE: Final = TimeRule(now=NOW.timestamp)
MOST: Final = 15
_ID_NAMES: Final[dict[Kind | None, str | None]] = {"meter": "meterId", "vehicle": "vehicleId", None: None}


def check(
    decoded: Decoded, body: bytes, kind: Kind | None, topic_id: str | None, *, lines: bool = False
) -> None:
    """Hold what was decoded against the contract: complete, disjoint, true, and never too much."""
    places = sorted([*decoded.indices, *(rejection.index for rejection in decoded.rejections)])
    assert places == list(range(len(places)))
    assert places
    assert len(decoded.indices) == len(decoded.readings)
    assert len(decoded.readings) <= MOST
    for rejection in decoded.rejections:
        check_rejection(rejection)
        assert rejection.raw == (body if decoded.whole else raw_part(decoded, rejection.index))
    for reading, index in zip(decoded.readings, decoded.indices, strict=True):
        check_reading(reading)
        said = oracle.values(_read(raw_part(decoded, index), oracle.LENIENT), _ID_NAMES[kind], topic_id)
        assert said == _as_said(reading), (said, reading)
    _check_none_missed(decoded, body, kind, topic_id, lines=lines)


def _check_none_missed(
    decoded: Decoded, body: bytes, kind: Kind | None, topic_id: str | None, *, lines: bool
) -> None:
    """Whatever is good for the strictest reader must have been taken."""
    try:
        if lines:
            parts: list[bytes] = [line for line in body.split(b"\n") if line.strip(b" \t\n\r")]
            items = [_read_or_none(part) for part in parts]
        else:
            items = oracle.items(body, oracle.STRICT.read) or []
    except (ValueError, oracle.Unsure):
        return
    if decoded.whole:
        # A name given twice may mean either (RFC 8259, 4): refusing "readings" for the first is as good.
        fair = decoded.rejections[0].code == "too_deep" or body.count(b'"readings"') > 1 or _odd(body)
        assert not items or len(items) > MOST or fair, items
        return
    assert len(items) == len(decoded.readings) + len(decoded.rejections)
    taken = set(decoded.indices)
    for index, item in enumerate(items):
        good = oracle.values(item, _ID_NAMES[kind], topic_id) is not None
        assert not good or index in taken or _odd(raw_part(decoded, index)), item


def _odd(part: bytes) -> bool:
    """Tell whether the json module is more forgiving than RFC 8259 and RFC 3629: half of a surrogate pair."""
    return b"\\u" in part and b"\\ud" in part.lower()


def _read(part: bytes, reader: oracle.Json) -> Any:
    try:
        return reader.read(part)
    except oracle.Unsure:
        return None


def _read_or_none(part: bytes) -> Any:
    try:
        return oracle.STRICT.read(part)
    except (ValueError, oracle.Unsure):
        return None


def _as_said(reading: Reading) -> tuple[Any, ...]:
    if isinstance(reading, MeterReading):
        return "meterId", reading.device_id, reading.recorded_at, reading.kwh_consumed_ac, reading.voltage
    numbers = reading.soc, reading.kwh_delivered_dc, reading.battery_temp
    return "vehicleId", reading.device_id, reading.recorded_at, *numbers


def check_reading(reading: Reading) -> None:
    """See that a reading keeps the rules, is the same once more, and has nothing that COPY would escape."""
    [_, device_id, recorded_at, *numbers] = _as_said(reading)
    assert oracle.ID.fullmatch(device_id)
    assert oracle.EARLIEST <= recorded_at <= oracle.LATEST
    assert all(isinstance(number, float) and -60 <= number <= 1000 for number in numbers)
    again = decode(msgspec.json.encode(reading), RULE)
    assert again.readings == [reading]
    row = rows(values([reading])).decode("ascii")
    assert not set(row) & set('\\\n"[]{}')
    cells = row.split(",")
    assert len(cells) == len(numbers) + 2
    assert datetime.fromisoformat(cells[1]) == recorded_at
    assert sorted(float(cell) for cell in cells[2:]) == sorted(numbers)


def check_rejection(rejection: Rejection) -> None:
    """See that a refusal names no device that cannot be one."""
    check_words(rejection.code, rejection.message, rejection.field)
    assert rejection.device_id is None or oracle.ID.fullmatch(rejection.device_id)
    assert rejection.kind in {None, "meter", "vehicle"}


def check_words(code: str, message: str, field: str | None) -> None:
    """See that a refusal can be stored and told, whatever it speaks of."""
    assert code.replace("_", "").isalpha()
    assert message
    msgspec.json.encode([code, message, field])
    assert len(message) < 2000


def check_problem(problem: Problem, status: int) -> None:
    """See that a refused request gets the status that fits, in words of some length."""
    assert problem.status == status
    check_words("code", str(problem.detail), None)

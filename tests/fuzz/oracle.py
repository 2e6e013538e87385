"""What a payload means, by the json module and the words of the contract: nothing of it is the service's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

from tests.fuzz.payloads import NOW

LATEST: Final = NOW + timedelta(seconds=300)
EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
ID: Final = re.compile(r"[A-Za-z0-9._:\-]{1,64}")
# RFC 3339, 5.6; its note lets a blank stand for T. A leap second is none that a database could keep.
_TIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]+)?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))"
)
FIELDS: Final[dict[str, dict[str, tuple[float, float]]]] = {
    "meterId": {"kwhConsumedAc": (0, 1000), "voltage": (0, 1000)},
    "vehicleId": {"soc": (0, 100), "kwhDeliveredDc": (0, 1000), "batteryTemp": (-60, 150)},
}


class Unsure(Exception):  # noqa: N818 - not an error: the json module cannot tell
    """Raised where the json module reads what it should not, or cannot read what it should."""


class Json:
    """A JSON text as the json module reads it; `strict` refuses bytes that are not UTF-8."""

    def __init__(self, *, strict: bool) -> None:
        self._decoder = json.JSONDecoder(parse_int=float, parse_constant=_refuse)
        self._errors = "strict" if strict else "replace"

    def read(self, body: bytes) -> Any:
        """Give the value; raises ValueError for what is no JSON, and Unsure."""
        text = body.decode("utf-8", self._errors)
        try:
            return self._decoder.decode(text.strip(" \t\n\r"))
        except RecursionError:
            raise Unsure from None


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


STRICT: Final = Json(strict=True)
LENIENT: Final = Json(strict=False)


def moment(text: object) -> datetime | None:
    """Give the moment that a text names, to the microsecond; None where it names none."""
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        found = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        if match[8]:
            if int(match[9]) > 23 or int(match[10]) > 59:
                return None
            offset = timedelta(hours=int(match[9]), minutes=int(match[10]))
            found = found - offset if match[8] == "+" else found + offset
        # Half a microsecond is rounded up.
        return found + timedelta(microseconds=(int((match[7] or ".")[1:8].ljust(7, "0")) + 5) // 10)
    except (ValueError, OverflowError):
        return None


def values(item: object, id_name: str | None, topic_id: str | None) -> tuple[Any, ...] | None:
    """Give the (id field, id, moment, numbers...) of a good reading, by the contract; None for a bad one."""
    if not isinstance(item, dict):
        return None
    named = [name for name in FIELDS if name in item] if id_name is None else [id_name]
    if len(named) != 1:
        return None
    device_id = item.get(named[0], topic_id)
    if not isinstance(device_id, str) or not ID.fullmatch(device_id) or topic_id not in {None, device_id}:
        return None
    at = moment(item.get("timestamp"))
    if at is None or not EARLIEST <= at <= LATEST:
        return None
    numbers = []
    for name, (low, high) in FIELDS[named[0]].items():
        number = item.get(name)
        if not isinstance(number, float) or not math.isfinite(number) or not low <= number <= high:
            return None
        numbers.append(number)
    return named[0], device_id, at, *numbers


def items(body: bytes, reader: Callable[[bytes], Any]) -> list[Any] | None:
    """Give the readings that a payload holds, good or bad; None where it is no payload of readings."""
    value = reader(body)
    if isinstance(value, dict):
        value = value.get("readings", [value])
    return value if isinstance(value, list) and value else None

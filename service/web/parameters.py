"""Query and path parameters of the routes: strict, and a mistake is a 400 that names the parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, TypeVar
from zoneinfo import available_timezones

import msgspec

from service.readings import DeviceId, Timestamp
from service.web.problems import Problem

T = TypeVar("T")

_LOST_PLUS: Final = re.compile(r" (?=\d\d:?\d\d$)")


def timestamp(name: str, text: str | None) -> datetime | None:
    """Read an RFC 3339 timestamp with a zone; an unescaped + arrives as a blank, and that is forgiven."""
    if text is None:
        return None
    try:
        moment = msgspec.convert(_LOST_PLUS.sub("+", text), Timestamp)
        return moment.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise Problem(
            400,
            "bad_parameter",
            f"{name}={text[:80]!r} is not an RFC 3339 timestamp with a zone, such as 2026-01-31T12:00:00Z",
            field=name,
        ) from None


def window(from_: str | None, to: str | None) -> tuple[datetime, datetime]:
    """Read a window [from, to); the last 24 hours unless asked. 400 when it ends before it starts."""
    end = timestamp("to", to)
    start = timestamp("from", from_)
    if end is None:
        end = datetime.now(UTC) if start is None or start < datetime.now(UTC) else start
    if start is None:
        start = end - timedelta(hours=24) if end.year > 1 else end
    _check_order(start, end)
    return start, end


def open_window(from_: str | None, to: str | None) -> tuple[datetime | None, datetime | None]:
    """Read a window [from, to) that has no end where none is given. 400 when it ends before it starts."""
    start, end = timestamp("from", from_), timestamp("to", to)
    if start is not None and end is not None:
        _check_order(start, end)
    return start, end


def _check_order(start: datetime, end: datetime) -> None:
    if start > end:
        raise Problem(400, "bad_parameter", "from lies after to", field="from")


def device(name: str, text: str) -> str:
    """Read a device id from a path."""
    try:
        return msgspec.convert(text, DeviceId)
    except msgspec.ValidationError:
        message = f"{name} must be 1 to 64 characters of A-Z a-z 0-9 . _ : -"
        raise Problem(400, "bad_parameter", message, field=name) from None


def number(name: str, text: str | None, low: float, high: float) -> float | None:
    """Read a finite number within bounds."""
    if text is None:
        return None
    try:
        value = msgspec.convert(text, float, strict=False)
    except msgspec.ValidationError:
        value = low - 1
    if not low <= value <= high:
        raise Problem(400, "bad_parameter", f"{name} must be a number from {low:g} to {high:g}", field=name)
    return value


def page(limit: str | None, after: str | None, most: int) -> dict[str, Any]:
    """Read the parameters of a keyset page: its size and the last id of the page before."""
    size = number("limit", limit, 1, most)
    if size is not None and not size.is_integer():
        raise Problem(400, "bad_parameter", "limit must be a whole number", field="limit")
    return {
        "page_size": 1000 if size is None else int(size),
        "after": "" if after is None else device("after", after),
    }


def flag(name: str, text: str | None) -> bool:
    """Read true or false; false when absent."""
    if text is None or text.lower() in {"false", "0"}:
        return False
    if text.lower() in {"true", "1"}:
        return True
    raise Problem(400, "bad_parameter", f"{name} must be true or false", field=name)


def choice(name: str, text: str | None, choices: Mapping[str, T], default: str) -> T:
    """Read one of some words; give what it stands for."""
    word = default if text is None else text
    if word not in choices:
        message = f"{name} must be {', '.join(list(choices)[:-1])} or {list(choices)[-1]}"
        raise Problem(400, "bad_parameter", message, field=name)
    return choices[word]


def zone(name: str, text: str | None) -> str:
    """Read the name of a time zone; UTC when absent."""
    if text is None:
        return "UTC"
    if text not in _zones():
        message = (
            f"{name}={text[:80]!r} is no time zone: give an IANA name such as Europe/Zurich or Asia/Kolkata"
        )
        raise Problem(400, "bad_parameter", message, field=name)
    return text


@cache
def _zones() -> set[str]:
    # What these mean depends on the machine.
    return available_timezones() - {"localtime", "posixrules", "Factory"}

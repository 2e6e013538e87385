"""Query and path parameters: what is read, what is forgiven, and that a mistake names its parameter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.web import parameters
from service.web.problems import Problem
from tests.support import strategies
from tests.support.strategies import pure


def refused(call: Callable[..., Any], *arguments: Any) -> Problem:
    """Call with a mistake; give the problem, which is a 400 that names a field."""
    with pytest.raises(Problem) as caught:
        call(*arguments)
    assert (caught.value.status, caught.value.code) == (400, "bad_parameter")
    return caught.value


@pure
@given(strategies.timestamps)
def test_timestamp_round_trip(moment: datetime) -> None:
    """Any moment with a zone is read as itself, in UTC."""
    read = parameters.timestamp("from", moment.isoformat())
    assert read == moment
    assert read is not None
    assert read.tzinfo is UTC


@pytest.mark.parametrize("text", ["2026-01-31T13:00:00+01:00", "2026-01-31T13:00:00 01:00"])
def test_a_lost_plus_is_forgiven(text: str) -> None:
    """A plus sign that was not escaped arrives as a blank."""
    assert parameters.timestamp("to", text) == datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["", " ", "now", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31 12:00:00", "1769860800", "0", "null",
     "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "\0", "é"],
)  # fmt: skip
def test_bad_timestamp(text: str) -> None:
    """A naive or unreadable timestamp, or one outside the calendar once in UTC, is refused."""
    assert refused(parameters.timestamp, "since", text).field == "since"


def test_no_timestamp() -> None:
    """An absent parameter is no mistake."""
    assert parameters.timestamp("since", None) is None


def test_the_window_is_the_last_day_unless_asked() -> None:
    """Without parameters the window is the 24 hours up to now."""
    before = datetime.now(UTC)
    start, end = parameters.window(None, None)
    assert end - start == timedelta(hours=24)
    assert before <= end <= datetime.now(UTC)


def test_a_window_with_one_end() -> None:
    """Without a start it is the 24 hours before the end; without an end it reaches to now."""
    start, end = parameters.window(None, "2026-01-31T12:00:00Z")
    assert (start, end) == (datetime(2026, 1, 30, 12, tzinfo=UTC), datetime(2026, 1, 31, 12, tzinfo=UTC))
    before = datetime.now(UTC)
    start, end = parameters.window("2026-01-31T12:00:00Z", None)
    assert start == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert before <= end <= datetime.now(UTC)
    ahead = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    start, end = parameters.window(ahead, None)
    assert start == end


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
        (None, "0001-01-01T00:00:00Z"),
        (None, "0001-01-02T00:00:00Z"),
        ("9999-12-31T23:59:59Z", None),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
    ],
)
def test_windows_at_the_edges_of_the_calendar(start: str | None, end: str | None) -> None:
    """The first and the last moments are windows like any other, and so is an empty one."""
    read = parameters.window(start, end)
    assert read[0] <= read[1]
    assert {moment.tzinfo for moment in read} == {UTC}


def test_a_window_that_ends_before_it_starts() -> None:
    """A start after the end is refused; the same moment in two zones is not."""
    assert refused(parameters.window, "2026-01-31T12:00:01Z", "2026-01-31T12:00:00Z").field == "from"
    assert refused(parameters.window, "2026-01-31T12:00:00", None).field == "from"
    assert refused(parameters.window, None, "x").field == "to"
    start, end = parameters.window("2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00")
    assert start == end


@pure
@given(strategies.device_ids)
def test_good_device(text: str) -> None:
    """Every id that a reading may have can be asked for."""
    assert parameters.device("meterId", text) == text


@pytest.mark.parametrize("text", ["", "a" * 65, "a b", "a/b", "a\n", "\0", "é", "a%2F"])
def test_bad_device(text: str) -> None:
    """An id that no device can have is refused and the parameter named."""
    assert refused(parameters.device, "meterId", text).field == "meterId"


def test_page() -> None:
    """A page has 1000 devices unless asked, and starts before the first id."""
    assert parameters.page(None, None, 10_000) == {"page_size": 1000, "after": ""}
    assert parameters.page("1", "m-1", 10_000) == {"page_size": 1, "after": "m-1"}
    assert parameters.page("10000", None, 10_000)["page_size"] == 10_000


@pytest.mark.parametrize("text", ["0", "-1", "10001", "1.5", "x", "", "nan", "inf", "1e99", "true", "\0"])
def test_bad_limit(text: str) -> None:
    """A page size is a whole number from 1 to the most that is allowed."""
    assert refused(parameters.page, text, None, 10_000).field == "limit"


def test_bad_after() -> None:
    """A page starts after an id."""
    assert refused(parameters.page, None, "a b", 10).field == "after"


@pytest.mark.parametrize(("text", "value"), [(None, None), ("0", 0), ("100", 100), ("1.5", 1.5), ("1e1", 10)])
def test_number(text: str | None, value: float | None) -> None:
    """Numbers within the bounds are read, the bounds included."""
    assert parameters.number("socBelow", text, 0, 100) == value


@pytest.mark.parametrize("text", ["-0.1", "100.1", "nan", "inf", "-inf", "x", "", "true", "1,5"])
def test_bad_number(text: str) -> None:
    """Anything else is refused, and the bounds are said."""
    problem = refused(parameters.number, "socBelow", text, 0, 100)
    assert problem.field == "socBelow"
    assert "0 to 100" in problem.detail


@pytest.mark.parametrize(("text", "value"), [(None, False), ("true", True), ("True", True), ("1", True),
                                             ("false", False), ("FALSE", False), ("0", False)])  # fmt: skip
def test_flag(text: str | None, value: bool) -> None:
    """True and false are read in any case, and as 1 and 0."""
    assert parameters.flag("atomic", text) is value


@pytest.mark.parametrize("text", ["", "yes", "2", "tru", "null"])
def test_bad_flag(text: str) -> None:
    """Anything else is refused: a typing error must not turn all-or-nothing off."""
    assert refused(parameters.flag, "atomic", text).field == "atomic"


@pure
@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text raises anything but a problem."""
    for call in (
        lambda: parameters.timestamp("since", text),
        lambda: parameters.window(text, None),
        lambda: parameters.device("meterId", text),
        lambda: parameters.page(text, text, 100),
        lambda: parameters.flag("atomic", text),
    ):
        with suppress(Problem):
            call()

"""Timestamps of a file: formats, zones, and the two hours of the year that local time gets wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ImportFileError
from service.importer.clock import Clock, zone_of
from service.importer.refusal import CellError

PARIS = ZoneInfo("Europe/Paris")
# Summer time ended at 01:00 UTC: 02:00 to 02:59 local time occurred at 00:00 UTC and again at 01:00.
AUTUMN = datetime(2023, 10, 29, tzinfo=UTC)


def utc(hour: int, minute: int = 0) -> datetime:
    """Give an instant of the day on which summer time ended."""
    return AUTUMN + timedelta(hours=hour, minutes=minute)


def local(instant: datetime) -> str:
    """Write an instant as Parisian local time without zone."""
    return instant.astimezone(PARIS).replace(tzinfo=None).isoformat()


def refusal(clock: Clock, text: str) -> str:
    """Give the code with which a timestamp is refused."""
    with pytest.raises(CellError) as caught:
        clock.read("m", text)
    return caught.value.code


@pytest.mark.parametrize(
    ("time_format", "text", "expected"),
    [
        (None, "2023-05-16T11:45:00Z", datetime(2023, 5, 16, 11, 45, tzinfo=UTC)),
        (None, "2023-05-16 13:45:00+02:00", datetime(2023, 5, 16, 11, 45, tzinfo=UTC)),
        (None, "2023-05-16 13:45", datetime(2023, 5, 16, 11, 45, tzinfo=UTC)),
        ("%d/%m/%Y %H:%M:%S", "16/05/2023 13:45:00", datetime(2023, 5, 16, 11, 45, tzinfo=UTC)),
        ("%d/%m/%Y %H:%M %z", "16/05/2023 11:45 +0000", datetime(2023, 5, 16, 11, 45, tzinfo=UTC)),
        ("unix", "1684237500", datetime(2023, 5, 16, 11, 45, tzinfo=UTC)),
        ("unix-ms", "1684237500250", datetime(2023, 5, 16, 11, 45, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_formats(time_format: str | None, text: str, expected: datetime) -> None:
    """Each format gives the instant; an offset in the text counts more than the zone of the file."""
    assert Clock(time_format, PARIS).read("m", text) == expected


@pytest.mark.parametrize(
    "text", ["yesterday", "2023-05-16", "16842375", "2023-02-30T00:00:00Z", "16/05/2023 13:45"]
)
def test_what_is_no_timestamp_is_refused(text: str) -> None:
    """A date alone, or text of another form, is a wrong type rather than a guess."""
    assert refusal(Clock(None, PARIS), text) == "wrong_type"


def test_a_naive_time_needs_a_zone() -> None:
    """Without --tz, a time without zone is refused."""
    assert refusal(Clock(), "2023-05-16T11:45:00") == "naive_timestamp"


def test_a_skipped_time_is_refused() -> None:
    """Half past two does not exist on the day that summer time begins, and its neighbours do."""
    clock = Clock(None, PARIS)
    assert clock.read("m", "2023-03-26T01:59:00") == datetime(2023, 3, 26, 0, 59, tzinfo=UTC)
    assert refusal(clock, "2023-03-26T02:30:00") == "nonexistent_time"
    assert clock.read("m", "2023-03-26T03:00:00") == datetime(2023, 3, 26, 1, 0, tzinfo=UTC)


@given(
    st.lists(st.integers(1, 59), min_size=200, max_size=300),
    st.booleans(),
    st.integers(1, 3),
)
def test_a_repeated_hour_is_settled_by_order(gaps_min: list[int], backward: bool, copies: int) -> None:
    """Readings less than an hour apart, in either order and even with repeats, keep their instants."""
    instants = [utc(-6)]
    for gap in gaps_min:
        if instants[-1] < utc(8):
            instants.append(instants[-1] + timedelta(minutes=gap))
    instants = [instant for instant in (instants[::-1] if backward else instants) for _ in range(copies)]
    clock = Clock(None, PARIS)
    assert [clock.read("m", local(instant)) for instant in instants] == instants


def test_hourly_readings_pass_the_repeated_hour() -> None:
    """The same local hour twice in an hourly file is two instants, forward and backward."""
    hours = [utc(hour) for hour in range(-4, 5)]
    for instants in (hours, hours[::-1]):
        clock = Clock(None, PARIS)
        assert [clock.read("m", local(instant)) for instant in instants] == instants


def test_devices_do_not_disturb_each_other() -> None:
    """Lines of several devices may be interleaved or follow one another."""
    instants = [utc(-1) + timedelta(minutes=minute) for minute in range(0, 240, 10)]
    interleaved, in_turn = Clock(None, PARIS), Clock(None, PARIS)
    for instant in instants:
        for device in ("a", "b"):
            assert interleaved.read(device, local(instant)) == instant
    for device in ("a", "b"):
        assert [in_turn.read(device, local(instant)) for instant in instants] == instants


def test_a_file_that_begins_in_the_repeated_hour_is_not_guessed() -> None:
    """Without an earlier reading nothing tells the passes apart, until the hour is over."""
    clock = Clock(None, PARIS)
    assert refusal(clock, local(utc(0, 30))) == "ambiguous_time"
    assert refusal(clock, local(utc(1, 30))) == "ambiguous_time"
    assert clock.read("m", local(utc(2))) == utc(2)


def test_a_step_behind_both_passes_is_not_guessed() -> None:
    """A line that lies before the last one in either pass is out of order, and refused."""
    clock = Clock(None, PARIS)
    for instant in (utc(3), utc(4)):
        clock.read("m", local(instant))
    assert refusal(clock, local(utc(1, 30))) == "ambiguous_time"


def test_the_ends_of_time_are_refused() -> None:
    """A local time whose instant no datetime can hold is a refusal, not a crash."""
    assert refusal(Clock(None, PARIS), "0001-01-01T00:00:00") == "out_of_range"
    assert refusal(Clock("unix"), "1e300") == "wrong_type"


@pytest.mark.parametrize("time_format", ["%H:%M:%S", "%d/%m %H:%M", "%Q", "noon"])
def test_a_format_without_a_date_is_an_error(time_format: str) -> None:
    """A format that cannot give year, month and day is refused before the file is read."""
    with pytest.raises(ImportFileError, match="--time-format"):
        Clock(time_format)


@pytest.mark.parametrize("name", ["Europe/Atlantis", "../etc/passwd", ""])
def test_an_unknown_zone_is_an_error(name: str) -> None:
    """A zone that does not exist is one clear line."""
    with pytest.raises(ImportFileError, match="unknown zone"):
        zone_of(name)

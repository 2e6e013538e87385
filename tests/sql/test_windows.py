"""The window arithmetic: properties, and the same in plain Python, whatever the session's time zone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg.types.multirange import Multirange, TimestamptzMultirange
from psycopg.types.range import TimestamptzRange

from tests.support import reckoning
from tests.support.reckoning import DAY, HOUR, Span
from tests.support.servers import Postgres
from tests.support.strategies import (
    CHANGING_ZONES,
    LOCAL_ZONES,
    against_a_database,
    near,
    session_zones,
    spans,
)

# 2026: clocks change in Havana and St. John's, in London and on the Azores, on Lord Howe and in Santiago.
CHANGES = [(3, 8), (3, 29), (4, 5), (9, 6), (10, 4), (10, 25), (11, 1)]
Distances = tuple[timedelta, timedelta]
ALL = [(timedelta(days=-200), timedelta(days=200))]

origins = st.sampled_from([datetime(2026, month, day, tzinfo=UTC) for month, day in CHANGES])


def horizon(until: int, holes: int, seed: int) -> list[Distances]:
    """Give everything up to an hour but for some stale hours."""
    stale = {hour for hour in Random(seed).sample(range(-60, 120), holes) if hour < until}
    starts = [-200, *(hour + 1 for hour in sorted(stale))]
    return [
        (start * HOUR, end * HOUR)
        for start, end in zip(starts, [*sorted(stale), until], strict=True)
        if start < end
    ]


# What is rolled up, days and hours: as the engine has it, or anything at all.
horizons = st.builds(horizon, st.integers(24, 120), st.integers(0, 30), st.integers(0, 2**32))
anything = horizons | st.lists(spans(), max_size=5) | st.just(ALL)
rolled_up = horizons.map(lambda rolled: (rolled, rolled)) | st.tuples(anything, anything)
cases = st.tuples(origins, session_zones, spans(), rolled_up)
many = settings(against_a_database, max_examples=250)


@pytest.fixture
def connection(postgres: Postgres, database: str) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection of the service's role."""
    with psycopg.connect(postgres.url("fleetwatt_service", database), autocommit=True) as connection:
        yield connection


@pytest.fixture
def owner(postgres: Postgres, database: str) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection of the owner's role: whole_window_edges is not the service's."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as connection:
        yield connection


def multirange(parts: list[Span]) -> TimestamptzMultirange:
    """Give spans as PostgreSQL takes them."""
    return TimestamptzMultirange([TimestamptzRange(start, end) for start, end in parts if start < end])


def spans_of(value: Multirange[datetime]) -> list[Span]:
    """Give a multirange as spans in UTC; Python's own arithmetic within another zone ignores its clock."""
    result = []
    for part in value:
        assert part.lower is not None
        assert part.upper is not None
        assert part.bounds == "[)"
        result.append((part.lower.astimezone(UTC), part.upper.astimezone(UTC)))
    return result


def use_zone(connection: psycopg.Connection[Any], zone: str) -> None:
    """Set the time zone of the session."""
    connection.execute("select set_config('timezone', %s, false)", (zone,))


def split(
    connection: psycopg.Connection[Any], asked: Span, days: list[Span], hours: list[Span]
) -> tuple[list[Span], list[Span], list[Span]]:
    """Ask PostgreSQL to split a span."""
    row = connection.execute(
        "select days, hours, rest from split_window(%s, %s, %s)",
        (TimestamptzRange(*asked), multirange(days), multirange(hours)),
    ).fetchone()
    assert row is not None
    return spans_of(row[0]), spans_of(row[1]), spans_of(row[2])


def placed(origin: datetime, distances: list[Distances]) -> list[Span]:
    """Give distances as moments, merged."""
    return reckoning.merged((origin + start, origin + end) for start, end in distances)


def test_the_parts_are_disjoint_cover_the_span_and_are_as_coarse_as_can_be(
    connection: psycopg.Connection[Any],
) -> None:
    """Days, hours and rest share nothing and miss nothing; no whole rolled-up bin is left finer."""
    seen: Counter[str] = Counter()

    @given(cases)
    @example((datetime(2026, 3, 29, tzinfo=UTC), "Europe/London", (HOUR / 2, 2 * DAY), (ALL, ALL)))
    @example((datetime(2026, 10, 25, tzinfo=UTC), "Europe/London", (HOUR / 2, 2 * DAY), (ALL, ALL)))
    @many
    def prove(case: tuple[datetime, str, Distances, tuple[list[Distances], list[Distances]]]) -> None:
        origin, zone, (start, end), (day_spans, hour_spans) = case
        asked = (origin + start, origin + end)
        rolled_days, rolled_hours = placed(origin, day_spans), placed(origin, hour_spans)
        use_zone(connection, zone)
        days, hours, rest = split(connection, asked, rolled_days, rolled_hours)
        assert reckoning.merged(days + hours + rest) == reckoning.merged([asked])
        for part, other in ((days, hours), (days, rest), (hours, rest)):
            assert reckoning.overlap(part, other) == []
        for part, width, rolled in ((days, DAY, rolled_days), (hours, HOUR, rolled_hours)):
            assert all(reckoning.bin_of(edge, width) == edge for span in part for edge in span)
            assert reckoning.without(part, rolled) == []
        # What is left finer than it could be: nothing.
        assert (
            reckoning.overlap(
                reckoning.whole_bins(reckoning.overlap([asked], rolled_days), DAY), hours + rest
            )
            == []
        )
        assert (
            reckoning.overlap(reckoning.whole_bins(reckoning.overlap([asked], rolled_hours), HOUR), rest)
            == []
        )
        assert (days, hours, rest) == reckoning.split(asked, rolled_days, rolled_hours)
        seen.update(
            cases=1,
            days=bool(days),
            hours=bool(hours),
            rest=bool(rest),
            holes=len(hours) > 2,
            empty=start == end,
            all_three=bool(days and hours and rest),
        )

    prove()
    assert min(seen[name] for name in ("days", "hours", "rest", "holes", "empty", "all_three")) > 3, seen


def test_whole_bins(connection: psycopg.Connection[Any]) -> None:
    """The longest run of whole hours or days inside a span, found bin by bin."""

    @given(origins, session_zones, spans(), st.sampled_from([HOUR, DAY]))
    @many
    def prove(origin: datetime, zone: str, distances: Distances, width: timedelta) -> None:
        use_zone(connection, zone)
        asked = (origin + distances[0], origin + distances[1])
        row = connection.execute(
            "select whole_bins(%s, make_interval(hours => %s))", (TimestamptzRange(*asked), width // HOUR)
        ).fetchone()
        assert row is not None
        given_back = [] if row[0].isempty else spans_of(Multirange([row[0]]))
        assert given_back == reckoning.whole_bins([asked], width)

    prove()


def test_cut_bins(connection: psycopg.Connection[Any]) -> None:
    """Exactly the hours or days with an edge strictly inside; local midnights at half past cut their hour."""

    @given(origins, session_zones, st.lists(near(-100, 100), max_size=8), st.sampled_from([HOUR, DAY]))
    @many
    def prove(origin: datetime, zone: str, distances: list[timedelta], width: timedelta) -> None:
        use_zone(connection, zone)
        edges = sorted(origin + distance for distance in distances)
        row = connection.execute(
            "select cut_bins(%s::timestamptz[], make_interval(hours => %s))", (edges, width // HOUR)
        ).fetchone()
        assert row is not None
        assert spans_of(row[0]) == reckoning.cut_bins(edges, width)

    prove()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((0.0, 0.0), ([], [], [])),
        ((0.25, 0.75), ([], [], [(0.25, 0.75)])),
        ((0.25, 1.0), ([], [], [(0.25, 1.0)])),
        ((0.0, 1.0), ([], [(0.0, 1.0)], [])),
        ((0.5, 2.5), ([], [(1.0, 2.0)], [(0.5, 1.0), (2.0, 2.5)])),
        ((0.0, 24.0), ([(0.0, 24.0)], [], [])),
        ((-0.5, 25.5), ([(0.0, 24.0)], [(24.0, 25.0)], [(-0.5, 0.0), (25.0, 25.5)])),
        ((1.0, 48.0), ([(24.0, 48.0)], [(1.0, 24.0)], [])),
        ((71.0, 90.0), ([], [(71.0, 72.0)], [(72.0, 90.0)])),
        ((72.0, 90.0), ([], [], [(72.0, 90.0)])),
    ],
)
def test_small_examples(
    connection: psycopg.Connection[Any],
    asked: tuple[float, float],
    expected: tuple[list[tuple[float, float]], ...],
) -> None:
    """Spans within an hour, on its edges, over days, and past the end of what is rolled up (hour 72)."""
    origin = datetime(2026, 1, 1, tzinfo=UTC)

    def moments(parts: list[tuple[float, float]]) -> list[Span]:
        return [(origin + start * HOUR, origin + end * HOUR) for start, end in parts]

    rolled = [(origin - 30 * DAY, origin + 72 * HOUR)]
    [span] = moments([asked])
    assert split(connection, span, rolled, rolled) == tuple(moments(part) for part in expected)


def hours_that_begin(zone: ZoneInfo, first: datetime, last: datetime) -> list[datetime]:
    """Give the moments in a span at which the zone's clock reads a full hour, looked for one by one."""
    quarter = timedelta(minutes=15)  # offsets of our days are whole quarters of an hour
    return [
        moment
        for number in range((last - first) // quarter + 1)
        if (moment := reckoning.bin_of(first, HOUR) + number * quarter).astimezone(zone).minute == 0
    ]


def days_that_begin(zone: ZoneInfo, width: str, first: datetime, last: datetime) -> list[datetime]:
    """Give where local days, weeks or months begin: the first of two midnights (fold=0), or the change."""
    dates = {(first + number * DAY).date() for number in range((last - first) // DAY + 1)}
    return sorted(
        {
            datetime.combine(date, time(), zone).astimezone(UTC)
            for date in dates
            if width == "day"
            or (width == "week" and date.weekday() == 0)
            or (width == "month" and date.day == 1)
        }
    )


def begin(zone: ZoneInfo, width: str, first: datetime, last: datetime) -> list[datetime]:
    """Give where hours, days, weeks or months of a zone begin, in a window and next to it."""
    if width == "hour":
        return hours_that_begin(zone, first - 3 * HOUR, last + 4 * HOUR)
    return days_that_begin(zone, width, first - 33 * DAY, last + 33 * DAY)


def edges_given(connection: psycopg.Connection[Any], function: str, *arguments: Any) -> list[datetime]:
    """Give what one of the two functions gives, in UTC."""
    row = connection.execute(f"select {function}(%s, %s, %s, %s)".encode(), arguments).fetchone()
    assert row is not None
    return [edge.astimezone(UTC) for edge in row[0]]


def test_edges_of_local_hours_and_days(
    connection: psycopg.Connection[Any], owner: psycopg.Connection[Any]
) -> None:
    """The clock of each zone tells them, whatever it does at a change and wherever the window begins."""
    seen: Counter[timedelta] = Counter()

    @given(
        origins,
        st.sampled_from([*CHANGING_ZONES, *LOCAL_ZONES]),
        session_zones,
        spans().filter(lambda span: span[0] < span[1]),
        st.sampled_from(["hour", "day", "day", "week", "month"]),
    )
    @many
    def prove(origin: datetime, name: str, session: str, distances: Distances, width: str) -> None:
        first, last = origin + distances[0], origin + distances[1]
        use_zone(connection, session)
        use_zone(owner, session)
        starts = begin(ZoneInfo(name), width, first, last)
        if width in {"hour", "day"}:
            given_back = edges_given(connection, "window_edges", first, last, width, name)
            assert given_back == [first, *(start for start in starts if first < start < last), last]
        whole = [pair for pair in pairwise(starts) if pair[1] > first and pair[0] < last]
        given_back = edges_given(owner, "whole_window_edges", first, last, width, name)
        assert given_back == [whole[0][0], *(end for _, end in whole)]
        seen.update(end - start for start, end in whole)

    prove()
    at_changes = {1.5 * HOUR, 23 * HOUR, 23.5 * HOUR, 24.5 * HOUR, 25 * HOUR}
    assert min(seen[HOUR], seen[DAY], sum(seen[length] for length in at_changes)) > 3, seen


@pytest.mark.parametrize(
    ("zone", "width", "first", "hours"),
    [
        # The clock goes back onto midnight: the day begins with the first of two, and comes once.
        ("Atlantic/Azores", "day", "2026-10-25T00:00Z", [25, 24]),
        ("America/Havana", "day", "2026-11-01T04:00Z", [25, 24]),
        ("America/Havana", "hour", "2026-11-01T04:00Z", [1, 1, 1]),
        # Midnight is skipped, or the clock goes back past it.
        ("America/Santiago", "day", "2026-09-05T04:00Z", [24, 23]),
        ("America/Santiago", "day", "2026-04-04T03:00Z", [25, 24]),
        # St. John's changed its clock a minute after midnight.
        ("America/St_Johns", "day", "2010-11-07T02:30Z", [25, 24]),
        # Half an hour, either way.
        ("Australia/Lord_Howe", "hour", "2026-04-04T13:00Z", [1, 1.5, 1]),
        ("Australia/Lord_Howe", "hour", "2026-10-03T13:30Z", [1, 1.5, 1]),
        ("Australia/Lord_Howe", "day", "2026-04-04T13:00Z", [24.5, 24]),
        ("Australia/Lord_Howe", "day", "2026-10-03T13:30Z", [23.5, 24]),
        ("America/Caracas", "hour", "2016-05-01T05:30Z", [1, 0.5, 1]),
        # A date that never was: its day is the next one's.
        ("Pacific/Apia", "day", "2011-12-29T10:00Z", [24, 24]),
        ("Asia/Kolkata", "hour", "2026-06-01T18:30Z", [1, 1]),
    ],
)
def test_what_a_change_of_the_clock_makes(
    connection: psycopg.Connection[Any],
    owner: psycopg.Connection[Any],
    zone: str,
    width: str,
    first: str,
    hours: list[float],
) -> None:
    """Hours and days around a change, from the start of one on; a window from within gives the same ones."""
    edges = [datetime.fromisoformat(first)]
    for length in hours:
        edges.append(edges[-1] + length * HOUR)
    for function, asked_by in (("window_edges", connection), ("whole_window_edges", owner)):
        assert edges_given(asked_by, function, edges[0], edges[-1], width, zone) == edges
    inside = edges[0] + timedelta(minutes=7), edges[-1] - timedelta(minutes=7)
    given_back = edges_given(connection, "window_edges", *inside, width, zone)
    assert given_back == [inside[0], *edges[1:-1], inside[1]]
    assert edges_given(owner, "whole_window_edges", *inside, width, zone) == edges

"""What may happen to the rollups, as data: the steps that the strategies draw, and how they become readings.

Times are distances from a change of clocks, so one history can be told again in another year.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from random import Random
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from service.readings import Kind, MeterReading, Reading, VehicleReading

# The first Sunday from this day on (month, day): clocks change in Havana and St. John's, in London and on the
# Azores, on Lord Howe and (in April) in Santiago.
SEASONS: Final = [(3, 8), (11, 1), (3, 25), (10, 25), (4, 1), (10, 1)]


class Trail(NamedTuple):
    """Readings of one device at equal distances; another `variant` gives other values for the same keys."""

    kind: Kind
    device: int
    start: timedelta
    step: timedelta
    length: int
    variant: int


class Store(NamedTuple):
    """Readings that arrive in one transaction, trail by trail or shuffled."""

    trails: list[Trail]
    shuffled: bool


class Refresh(NamedTuple):
    """A refresh when the hours up to `until` are finished."""

    until: timedelta


class Plug(NamedTuple):
    """A charging session that becomes known; without an end it is open."""

    meter: int
    vehicle: int
    start: timedelta
    end: timedelta | None


class Correct(NamedTuple):
    """A session, by its place among those known: it was of another vehicle and ended elsewhere."""

    place: int
    vehicle: int
    end: timedelta | None


class LocalDays(NamedTuple):
    """The midnights of some days in a time zone, counted from the day of the change."""

    zone: str
    first: int
    last: int


class History(NamedTuple):
    """What happens in which season, and the windows and edges that are asked for after each step.

    `zone` is the time zone of the connection that asks.
    """

    season: int
    steps: list[Store | Refresh | Plug | Correct]
    windows: list[tuple[timedelta, timedelta]]
    edges: list[list[timedelta] | LocalDays]
    zone: str


class Told:
    """A history as it is told in one year, with devices of its own."""

    def __init__(self, history: History, year: int, tag: str) -> None:
        self.history = history
        month, day = SEASONS[history.season]
        first = datetime(year, month, day, tzinfo=UTC)
        self.origin = first + timedelta(days=(6 - first.weekday()) % 7)
        self.meters = [f"{tag}-m{number}" for number in range(3)]
        self.vehicles = [f"{tag}-v{number}" for number in range(3)]

    def at(self, distance: timedelta) -> datetime:
        """Give the moment at a distance."""
        return self.origin + distance

    def windows(self) -> list[tuple[datetime, datetime]]:
        """Give the windows that are asked for."""
        return [(self.at(start), self.at(end)) for start, end in self.history.windows]

    def edges(self) -> list[list[datetime]]:
        """Give the lists of edges that are asked for."""
        return [
            local_midnights(self.origin, edges)
            if isinstance(edges, LocalDays)
            else [self.at(edge) for edge in edges]
            for edges in self.history.edges
        ]

    def readings(self, store: Store) -> list[Reading]:
        """Give the readings of a step in the order of their arrival."""
        result = [reading for trail in store.trails for reading in self._follow(trail)]
        if store.shuffled:
            Random(len(result)).shuffle(result)
        return result

    def _follow(self, trail: Trail) -> Iterator[Reading]:
        for number in range(trail.length):
            moment = self.at(trail.start + number * trail.step)
            # Values hang on the key alone, so that trails which meet send real repeats.
            chance = Random(f"{trail.kind} {trail.device} {moment} {trail.variant}")
            kwh = chance.choice([0.0, chance.random(), chance.random() * 1000])
            if trail.kind == "meter":
                yield MeterReading(self.meters[trail.device], moment, kwh, chance.uniform(0, 1000))
            else:
                yield VehicleReading(
                    self.vehicles[trail.device], moment, chance.uniform(0, 100), kwh, chance.uniform(-60, 150)
                )


def local_midnights(origin: datetime, days: LocalDays) -> list[datetime]:
    """Give the midnights of local days, in UTC; where one comes twice, the first, as Python does."""
    zone = ZoneInfo(days.zone)
    return [
        datetime.combine(origin.date() + timedelta(days=day), time(), zone).astimezone(UTC)
        for day in range(days.first, days.last + 1)
    ]

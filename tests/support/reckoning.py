"""What fleetwatt must answer, reckoned in plain Python from the rows: the other side of the exactness tests.

It knows nothing of rollups. Spans are half-open pairs of moments; hours and days are UTC's.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple

from service.readings import MeterReading, Reading, VehicleReading

Span = tuple[datetime, datetime]
Key = tuple[str, datetime]

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
FOREVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Give the same moments as the fewest spans, in order."""
    result: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return result


def overlap(spans: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    """Give the moments that lie in both."""
    rest = list(others)
    return merged((max(a[0], b[0]), min(a[1], b[1])) for a in spans for b in rest)


def without(spans: Iterable[Span], holes: Iterable[Span]) -> list[Span]:
    """Give the moments that lie in the spans and in no hole."""
    result = merged(spans)
    for hole_start, hole_end in merged(holes):
        result = [
            part
            for start, end in result
            for part in ((start, min(end, hole_start)), (max(start, hole_end), end))
            if part[0] < part[1]
        ]
    return result


def bin_of(moment: datetime, width: timedelta) -> datetime:
    """Give the start of the hour or day that holds a moment."""
    return moment - (moment - _EPOCH) % width


def whole_bins(spans: Iterable[Span], width: timedelta) -> list[Span]:
    """Give the bins that lie wholly in one of the spans, found one by one."""
    result = []
    for start, end in merged(spans):
        first = bin_of(start, width)
        while first < end:
            if start <= first and first + width <= end:
                result.append((first, first + width))
            first += width
    return merged(result)


def split(asked: Span, days: list[Span], hours: list[Span]) -> tuple[list[Span], list[Span], list[Span]]:
    """Give the whole days, the other whole hours and the rest of a span, as split_window must."""
    whole_days = whole_bins(overlap([asked], days), DAY)
    whole_hours = without(whole_bins(overlap([asked], hours), HOUR), whole_days)
    return whole_days, whole_hours, without([asked], whole_days + whole_hours)


def cut_bins(edges: Iterable[datetime], width: timedelta) -> list[Span]:
    """Give the bins that have an edge strictly inside."""
    firsts = {(bin_of(edge, width), edge) for edge in edges}
    return merged((first, first + width) for first, edge in firsts if first != edge)


class Session(NamedTuple):
    """A charging session; one without an end is open."""

    session_id: str
    vehicle: str
    meter: str
    start: datetime
    end: datetime | None

    @property
    def during(self) -> Span:
        """Give its span."""
        return self.start, self.end or FOREVER


class Book:
    """The rows as they must be stored: of two readings under one key, the first."""

    def __init__(self) -> None:
        self.meter_rows: dict[Key, MeterReading] = {}
        self.vehicle_rows: dict[Key, VehicleReading] = {}
        self.sessions: list[Session] = []

    def store(self, readings: Iterable[Reading]) -> None:
        """Take readings in the order of their arrival."""
        for reading in readings:
            key = (reading.device_id, reading.recorded_at)
            if isinstance(reading, MeterReading):
                self.meter_rows.setdefault(key, reading)
            else:
                self.vehicle_rows.setdefault(key, reading)

    def vehicles(self) -> set[str]:
        """Give every vehicle that reported or was charged."""
        return {vehicle for vehicle, _ in self.vehicle_rows} | {s.vehicle for s in self.sessions}

    def billed(self, edges: Sequence[datetime]) -> dict[tuple[int, str, str], list[float]]:
        """Give the kWh of each reading that a session billed, by window, vehicle and meter."""
        result = defaultdict(list)
        for session in self.sessions:
            for row in self._meter(session.meter, overlap([session.during], [(edges[0], edges[-1])])):
                place = bisect_right(edges, row.recorded_at)
                result[place, session.vehicle, session.meter].append(row.kwh_consumed_ac)
        return result

    def delivered(self, edges: Sequence[datetime]) -> dict[tuple[int, str], list[VehicleReading]]:
        """Give the readings of each vehicle in the order of time, by window and vehicle."""
        result = defaultdict(list)
        for (vehicle, moment), row in sorted(self.vehicle_rows.items()):
            if edges[0] <= moment < edges[-1]:
                result[bisect_right(edges, moment), vehicle].append(row)
        return result

    def pairs(self, window: Span) -> dict[tuple[str, str], tuple[Any, ...]]:
        """Give AC, its count, DC, its count and seconds of each pair while it alone was connected."""
        connected = defaultdict(list)
        for session in self.sessions:
            if overlap([session.during], [window]):
                connected[session.vehicle, session.meter].append(session.during)
        result = {}
        for (vehicle, meter), spans in connected.items():
            alone = self._alone(vehicle, meter, overlap(spans, [window]))
            seconds = math.fsum((end - start).total_seconds() for start, end in alone)
            result[vehicle, meter] = (*self._both(vehicle, meter, alone), seconds)
        return result

    def charged(self, edges: Sequence[datetime]) -> dict[tuple[int, str], tuple[Any, ...]]:
        """Give AC, its count, DC, its count of each meter while a vehicle drew from it alone, by window."""
        result: dict[tuple[int, str], tuple[Any, ...]] = {}
        for place, window in enumerate(pairwise(edges), 1):
            for (_, meter), (kwh_ac, meter_count, kwh_dc, vehicle_count, _) in self.pairs(window).items():
                if meter_count or vehicle_count:
                    ac, m, dc, v = result.get((place, meter), (0.0, 0, 0.0, 0))
                    result[place, meter] = (ac + kwh_ac, m + meter_count, dc + kwh_dc, v + vehicle_count)
        return result

    def metered(self, edges: Sequence[datetime]) -> dict[tuple[int, str], list[MeterReading]]:
        """Give the readings of each meter, by window and meter."""
        result = defaultdict(list)
        for (meter, moment), row in self.meter_rows.items():
            if edges[0] <= moment < edges[-1]:
                result[bisect_right(edges, moment), meter].append(row)
        return result

    def session_energy(self, as_of: datetime) -> dict[tuple[str], tuple[Any, ...]]:
        """Give all AC of each session up to a moment; AC, DC and counts while its meter was the only one."""
        result = {}
        for session in self.sessions:
            asked = overlap([session.during], [(datetime(1, 1, 1, tzinfo=UTC), as_of)])
            alone = self._alone(session.vehicle, session.meter, asked)
            metered = math.fsum(row.kwh_consumed_ac for row in self._meter(session.meter, asked))
            result[session.session_id,] = (metered, *self._both(session.vehicle, session.meter, alone))
        return result

    def _alone(self, vehicle: str, meter: str, spans: list[Span]) -> list[Span]:
        """Leave out of spans when a vehicle was connected to another meter."""
        others = [s.during for s in self.sessions if s.vehicle == vehicle and s.meter != meter]
        return without(spans, others)

    def _both(self, vehicle: str, meter: str, spans: list[Span]) -> tuple[float, int, float, int]:
        """Give AC of a meter, its count, DC of a vehicle and its count in some spans."""
        ac = [row.kwh_consumed_ac for row in self._meter(meter, spans)]
        dc = [
            row.kwh_delivered_dc
            for (name, moment), row in self.vehicle_rows.items()
            if name == vehicle and holds(spans, moment)
        ]
        return math.fsum(ac), len(ac), math.fsum(dc), len(dc)

    def _meter(self, meter: str, spans: list[Span]) -> Iterator[MeterReading]:
        for (name, moment), row in self.meter_rows.items():
            if name == meter and holds(spans, moment):
                yield row


def holds(spans: Iterable[Span], moment: datetime) -> bool:
    """Tell whether a moment lies in one of the spans."""
    return any(start <= moment < end for start, end in spans)


def meter_rollup(rows: Iterable[MeterReading], width: timedelta) -> dict[Key, tuple[Any, ...]]:
    """Give the columns of meter_hourly or meter_daily, by meter and bin."""
    bins = defaultdict(list)
    for row in rows:
        bins[row.device_id, bin_of(row.recorded_at, width)].append(row)
    return {
        key: (
            len(part),
            math.fsum(row.kwh_consumed_ac for row in part),
            max(row.kwh_consumed_ac for row in part),
            math.fsum(row.voltage for row in part),
            min(row.voltage for row in part),
            max(row.voltage for row in part),
        )
        for key, part in bins.items()
    }


def vehicle_rollup(rows: Iterable[VehicleReading], width: timedelta) -> dict[Key, tuple[Any, ...]]:
    """Give the columns of vehicle_hourly or vehicle_daily, by vehicle and bin."""
    bins = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.recorded_at):
        bins[row.device_id, bin_of(row.recorded_at, width)].append(row)
    return {
        key: (
            len(part),
            math.fsum(row.kwh_delivered_dc for row in part),
            max(row.kwh_delivered_dc for row in part),
            *temperature_and_soc(part),
        )
        for key, part in bins.items()
    }


def temperature_and_soc(rows: Sequence[VehicleReading]) -> tuple[float, ...]:
    """Give sum, min, max of the temperature and min, max, first, last SoC of rows in the order of time."""
    return (
        math.fsum(row.battery_temp for row in rows),
        min(row.battery_temp for row in rows),
        max(row.battery_temp for row in rows),
        min(row.soc for row in rows),
        max(row.soc for row in rows),
        rows[0].soc,
        rows[-1].soc,
    )


def differences(expected: dict[Any, tuple[Any, ...]], given: dict[Any, tuple[Any, ...]]) -> list[str]:
    """List what differs: counts and what is absent exactly, sums beyond what rounding explains."""
    result = [f"{key}: expected nothing, got {given[key]}" for key in given.keys() - expected.keys()]
    for key, row in expected.items():
        other = given.get(key)
        if other is None or len(row) != len(other) or not all(map(_equal, row, other)):
            result.append(f"{key}: expected {row}, got {other}")
    return result


def _equal(expected: Any, given: Any) -> bool:
    if isinstance(expected, float) and isinstance(given, float):
        # The absolute part is for temperatures, whose sums may cancel out.
        return math.isclose(expected, given, rel_tol=1e-9, abs_tol=1e-9)
    return bool(expected == given) and type(expected) is type(given)


def windows_of(edges: Sequence[datetime]) -> Iterator[Span]:
    """Give the windows between edges."""
    return pairwise(edges)

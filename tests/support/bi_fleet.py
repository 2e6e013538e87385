"""A small fleet for the tests of the schema bi: three days of last year, the last day, and its book."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg.types.range import TimestamptzRange

from service.readings import MeterReading, Reading, VehicleReading
from tests.support.reckoning import DAY, HOUR, Book, Session, bin_of
from tests.support.servers import Postgres

START: Final = datetime(2025, 6, 1, tzinfo=UTC)
END: Final = START + 3 * DAY
STEP: Final = timedelta(minutes=7)
# Vehicle, meter, start and end in minutes after midnight: edges within an hour, two in one, exact hours, over
# midnight. car-3 draws from two meters at once for a while; car-4 never reports; car-6 fails now.
DAILY: Final = [
    ("car-1", "m-1", 497.5, 702.2),
    ("car-1", "m-1", 785, 800),
    ("car-1", "m-1", 805, 830),
    ("car-1", "m-1", 900, 1020),
    ("car-1", "m-1", 1350, 1575),
    ("car-3", "m-3", 600, 790),
    ("car-3", "m-4", 725, 915),
    ("car-4", "m-5", 300, 333),
]
# Of what the meter counts, how much arrives: car-3's chargers are failing.
YIELD: Final = {"car-1": 0.91, "car-2": 0.88, "car-3": 0.72, "car-5": 0.9}


def build(postgres: Postgres, database: str) -> Book:
    """Store the fleet as the service does, roll up what is finished, and give the book of what is stored."""
    book = Book()
    book.sessions.extend(_sessions())
    book.store(_history())
    book.store(_present())
    book.store(_failing())
    with psycopg.connect(postgres.url("fleetwatt_service", database)) as connection:
        store(connection, [*book.meter_rows.values(), *book.vehicle_rows.values()])
        for session in book.sessions:
            connection.execute(
                "insert into charging_session (session_id, vehicle_id, meter_id, during) "
                "values (%s, %s, %s, %s)",
                (
                    session.session_id,
                    session.vehicle,
                    session.meter,
                    TimestamptzRange(session.start, session.end),
                ),
            )
    refresh(postgres, database)
    return book


def store(connection: psycopg.Connection[Any], readings: list[Reading]) -> None:
    """Add readings to history."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage) "
            "values (%s, %s, %s, %s)",
            [
                (row.device_id, row.recorded_at, row.kwh_consumed_ac, row.voltage)
                for row in readings
                if isinstance(row, MeterReading)
            ],
        )
        cursor.executemany(
            "insert into vehicle_reading (vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp) "
            "values (%s, %s, %s, %s, %s)",
            [
                (row.device_id, row.recorded_at, row.soc, row.kwh_delivered_dc, row.battery_temp)
                for row in readings
                if isinstance(row, VehicleReading)
            ],
        )


def refresh(postgres: Postgres, database: str) -> None:
    """Roll up what is finished."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as connection:
        connection.execute("call refresh_rollups()")


def _sessions() -> Iterator[Session]:
    yield Session("standing", "car-2", "m-2", START - DAY, None)
    yield Session("failing", "car-6", "m-6", _today() - DAY, None)
    for day in range(3):
        midnight = START + day * DAY
        for number, (vehicle, meter, first, last) in enumerate(DAILY):
            start, end = (midnight + timedelta(minutes=minutes) for minutes in (first, last))
            yield Session(f"s-{day}-{number}", vehicle, meter, start, end)


def _history() -> Iterator[Reading]:
    for number in range(3 * 24 * 60 // 7):
        moment = START + number * STEP
        for meter in ("m-1", "m-2", "m-3", "m-4", "m-5"):
            yield MeterReading(meter, moment, 0.4 + number % 37 / 100, 225.0 + number % 11)
        for vehicle, part in YIELD.items():
            # Not at the meter's minute: the two know nothing of each other.
            kwh = part * (0.4 + number % 37 / 100)
            yield VehicleReading(
                vehicle, moment + timedelta(minutes=3), float(number % 90), kwh, 18.0 + number % 13 / 2
            )


def _today() -> datetime:
    """Give the end of the last hour that a refresh rolls up: it settles for two minutes."""
    return bin_of(datetime.now(UTC) - timedelta(minutes=2), HOUR)


def _failing() -> Iterator[Reading]:
    """Give the last day of a pair that an alert must be opened for."""
    for number in range(24 * 60):
        moment = _today() - DAY + timedelta(minutes=number)
        yield MeterReading("m-6", moment, 0.1, 230.0)
        yield VehicleReading("car-6", moment, 60.0, 0.07, 24.0)


def _present() -> Iterator[Reading]:
    now = datetime.now(UTC)
    for number in range(1, 6):
        yield MeterReading("m-2", now - number * timedelta(seconds=20), 0.1 * number, 231.0)
        yield VehicleReading("car-2", now - number * timedelta(seconds=21), 50.0, 0.08 * number, 21.5)


def figures(ac: list[float], dc: list[float]) -> tuple[Any, ...]:
    """Give the columns that every view of efficiency has."""
    kwh_ac, kwh_dc = math.fsum(ac), math.fsum(dc)
    return kwh_ac, kwh_dc, kwh_ac - kwh_dc, kwh_dc / kwh_ac if ac else None, len(ac), len(dc)


def by_vehicle(book: Book, edges: list[datetime]) -> dict[Any, tuple[Any, ...]]:
    """Give the figures of each vehicle and window in which anything was counted."""
    ac: dict[Any, list[float]] = defaultdict(list)
    dc: dict[Any, list[float]] = defaultdict(list)
    for (place, vehicle, _), kwh in book.billed(edges).items():
        ac[vehicle, edges[place - 1]].extend(kwh)
    for (place, vehicle), rows in book.delivered(edges).items():
        dc[vehicle, edges[place - 1]].extend(row.kwh_delivered_dc for row in rows)
    return {key: figures(ac[key], dc[key]) for key in {*ac, *dc}}


def of_fleet(book: Book, edges: list[datetime]) -> dict[Any, tuple[Any, ...]]:
    """Give the figures of the fleet and the number of vehicles, for each window that holds a reading."""
    ac: dict[Any, list[float]] = defaultdict(list)
    dc: dict[Any, list[float]] = defaultdict(list)
    who: dict[Any, set[str]] = defaultdict(set)
    for (place, vehicle, _), kwh in book.billed(edges).items():
        ac[place].extend(kwh)
        who[place].add(vehicle)
    for (place, vehicle), rows in book.delivered(edges).items():
        dc[place].extend(row.kwh_delivered_dc for row in rows)
        who[place].add(vehicle)
    return {
        ("fleet", edges[place - 1]): (*figures(ac[place], dc[place]), len(who[place]))
        for place in range(1, len(edges))
    }

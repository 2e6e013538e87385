"""Readings become rows, for COPY and as arrays, and are read back bit for bit: by the real server."""

from __future__ import annotations

import math
import string
import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.ingest.streams import METER, VEHICLE, Stream, rows, values
from service.readings import EARLIEST, MeterReading, Reading, VehicleReading
from service.settings import Settings
from tests.support.snapshots import insert_few
from tests.support.strategies import LOCAL_ZONES, NOW, against_a_database, device_ids, near, zones

Connection = psycopg.Connection[tuple[Any, ...]]
Rows = list[tuple[Any, ...]]

_SELECT: Final = {
    "meter": "meter_id, recorded_at, kwh_consumed_ac, voltage from meter_reading",
    "vehicle": "vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp from vehicle_reading",
}
_STATE: Final = {kind: text.replace("_reading", "_state") for kind, text in _SELECT.items()}

_LONG_AGO: Final = datetime.fromisoformat("1880-01-01")
_CLOCKS_BACK: Final = datetime.fromisoformat("2025-10-26")
# Local mean time, which the zones of the database begin with, has seconds in its offset.
old_times: Final = st.datetimes(
    _LONG_AGO, _LONG_AGO + timedelta(days=1), timezones=st.sampled_from(LOCAL_ZONES).map(ZoneInfo)
)
# About the hour at which clocks go back in Europe: the same local time twice.
folded_times: Final = st.datetimes(
    _CLOCKS_BACK, _CLOCKS_BACK + timedelta(hours=3), timezones=st.just(ZoneInfo("Europe/Zurich"))
)
recent_times: Final = st.builds(
    lambda distance, zone: (NOW - timedelta(days=2) + distance).astimezone(zone),
    near(-30, 30),
    zones | st.sampled_from([UTC, ZoneInfo("UTC"), *map(ZoneInfo, LOCAL_ZONES)]),
)
times: Final = (
    recent_times
    | recent_times
    | old_times
    | st.builds(lambda moment, fold: moment.replace(fold=fold), folded_times, st.sampled_from([0, 1]))
)


def numbers(least: float, most: float) -> st.SearchStrategy[float]:
    """Give values between bounds: floats, also the smallest there are, zero of both signs, integers."""
    special = [1e-7, 5e-324, -5e-324, 2.2250738585072014e-308, 0.0, -0.0, 0.1 + 0.2, 1e-5, 99.99999999999999]
    return (
        st.floats(least, most)
        | st.sampled_from([value for value in special if least <= value <= most])
        | st.integers(int(least), int(most))
    )


meter_readings: Final = st.builds(MeterReading, device_ids, times, numbers(0, 1000), numbers(0, 1000))
vehicle_readings: Final = st.builds(
    VehicleReading, device_ids, times, numbers(0, 100), numbers(0, 1000), numbers(-60, 150)
)


def batches(readings: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Give lists of readings, no two of one key."""
    return st.lists(readings, min_size=1, max_size=12, unique_by=lambda each: (each.device_id, _moment(each)))


def _moment(reading: Reading) -> datetime:
    return reading.recorded_at.astimezone(UTC)


def bits(row: Sequence[Any]) -> tuple[Any, ...]:
    """Give a row with its moment in UTC and its values as their bits, which tell -0.0 from 0.0."""
    device, moment, *rest = row
    return device, moment.astimezone(UTC), *(struct.pack(">d", value) for value in rest)


@pytest.fixture
def service(settings: Settings) -> Iterator[Connection]:
    """Connect as the service, as far from UTC and from plain dates as a server may be set."""
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute("set time zone 'Australia/Lord_Howe'")
        connection.execute("set datestyle to 'SQL, DMY'")
        yield connection


def read(connection: Connection, select: str) -> Rows:
    """Give rows as bits, in the order of keys; the binary form of a value is exact."""
    with connection.cursor(binary=True) as cursor:
        return list(map(bits, cursor.execute(f"select {select} order by 1, 2".encode())))


def compare(connection: Connection, stream: Stream, readings: Sequence[Reading]) -> Rows:
    """Look readings up as the writer does; give the places of those that are not stored as they are."""
    tuples = values(readings)
    moments = [each[1] for each in tuples]
    bounds = {"earliest": min(moments), "latest": max(moments)}
    return connection.execute(stream.compare, {**stream.columns(tuples), **bounds}).fetchall()


def _copy(connection: Connection, readings: Sequence[Reading]) -> None:
    stream = METER if isinstance(readings[0], MeterReading) else VEHICLE
    with connection.cursor() as cursor, cursor.copy(stream.copy) as copy:
        copy.write(rows(values(readings)))


def _insert_new(connection: Connection, readings: Sequence[Reading]) -> None:
    stream = METER if isinstance(readings[0], MeterReading) else VEHICLE
    columns = stream.columns(values(readings))
    assert connection.execute(stream.insert_new, columns).fetchall() == []
    assert len(connection.execute(stream.insert_new, columns).fetchall()) == len(readings)


def check(connection: Connection, stream: Stream, readings: list[Any]) -> None:
    """Store readings in each way, and undo it: what is read back, and looked up, is what they were."""
    expected = sorted(bits(msgspec.structs.astuple(each)) for each in readings)
    newest = {row[0]: row for row in expected}
    for way in (_copy, insert_few, _insert_new):
        with connection.transaction(force_rollback=True):
            assert compare(connection, stream, readings) == [
                (place, False) for place in range(1, len(readings) + 1)
            ]
            way(connection, readings)
            assert read(connection, _SELECT[stream.kind]) == expected
            assert read(connection, _STATE[stream.kind]) == sorted(newest.values())
            assert compare(connection, stream, readings) == []
            nudged = [_nudged(each) for each in readings]
            assert compare(connection, stream, nudged) == [(n, True) for n in range(1, len(readings) + 1)]


def _nudged(reading: Any) -> Any:
    """Give a reading whose first value is the next float there is."""
    name = reading.__struct_fields__[2]
    return msgspec.structs.replace(reading, **{name: math.nextafter(getattr(reading, name), math.inf)})


_EVERY_CHARACTER: Final = [
    "null",
    "NULL",
    ".",
    "-",
    "_.:-",
    "0",
    "1e5",
    string.ascii_letters + "._:-",
    string.digits,
]


@against_a_database
@given(batches(meter_readings))
@example(
    [MeterReading(each, NOW, 0.1, 230.0) for each in sorted({*_EVERY_CHARACTER, *string.printable[:62]})]
)
@example(
    [MeterReading("m", EARLIEST.astimezone(zone), 5e-324, -0.0) for zone in [timezone(timedelta(hours=-23))]]
)
def test_meter_readings_come_back_bit_for_bit(service: Connection, readings: list[MeterReading]) -> None:
    """Any id, any offset from UTC, any value that a reading may have."""
    check(service, METER, readings)


@against_a_database
@given(batches(vehicle_readings))
@example([VehicleReading("v" * 64, NOW.astimezone(timezone(timedelta(hours=23, minutes=59))), 0, 1e-7, -60)])
def test_vehicle_readings_come_back_bit_for_bit(service: Connection, readings: list[VehicleReading]) -> None:
    """The same for vehicles, whose temperatures are below zero too."""
    check(service, VEHICLE, readings)


@pytest.mark.parametrize(
    "zone", [timezone(timedelta(hours=sign * 23, minutes=sign * 59)) for sign in (1, -1)] + [ZoneInfo("UTC")]
)
def test_values_are_in_utc(zone: Any) -> None:
    """One reading in another zone among many in UTC is enough; PostgreSQL reads no offset beyond 15:59."""
    local = MeterReading("m-2", NOW.astimezone(zone), 0.1, 230.0)
    both = values([MeterReading("m-1", NOW, 0.1, 230.0), local])
    assert both == [("m-1", NOW, 0.1, 230.0), ("m-2", NOW, 0.1, 230.0)]
    assert [row[1].tzinfo for row in both] == [UTC, UTC]
    assert rows(both).decode().splitlines() == [f"m-{n},2026-01-31T12:00:00Z,0.1,230.0" for n in (1, 2)]

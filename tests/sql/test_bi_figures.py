"""The figures in the schema bi, as its role sees them, against what plain Python reckons from the rows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import errors

from service.readings import MeterReading, VehicleReading
from tests.support import bi_fleet
from tests.support.bi_fleet import END, START, by_vehicle, of_fleet
from tests.support.reckoning import DAY, HOUR, Book, bin_of, differences, meter_rollup, vehicle_rollup
from tests.support.servers import Postgres

WIDTHS = {"hour": HOUR, "day": DAY}
SUFFIX = {"hour": "hourly", "day": "daily"}
Connection = psycopg.Connection[Any]


class Fleet(NamedTuple):
    """The book, and a connection of the role fleetwatt_bi to the database that holds the same."""

    book: Book
    bi: Connection


@pytest.fixture
def fleet(postgres: Postgres, database: str) -> Iterator[Fleet]:
    """Give a database with the small fleet in it."""
    book = bi_fleet.build(postgres, database)
    with psycopg.connect(postgres.url("fleetwatt_bi", database), autocommit=True) as connection:
        connection.execute("set timezone = 'America/St_Johns'")  # nothing may hang on it
        yield Fleet(book, connection)


def keyed(connection: Connection, statement: str, *parameters: Any) -> dict[Any, tuple[Any, ...]]:
    """Give the rows by their first two columns, times in UTC."""
    rows = connection.execute(statement.encode(), parameters).fetchall()
    return {(row[0], row[1].astimezone(UTC)): row[2:] for row in rows}


def edges_of(book: Book, width: timedelta) -> list[datetime]:
    """Give the bins that hold readings, as edges; what lies between two of them is empty."""
    moments = [key[1] for key in (*book.meter_rows, *book.vehicle_rows)]
    starts = {bin_of(moment, width) for moment in moments}
    return sorted(starts | {start + width for start in starts})


@pytest.mark.parametrize("unit", WIDTHS)
def test_devices_by_hour_and_by_day(fleet: Fleet, unit: str) -> None:
    """What each meter drew and each vehicle got, means made of sums, the present hour included."""
    width, suffix = WIDTHS[unit], SUFFIX[unit]
    meters = {
        key: (n, kwh, most, total / n, low, high)
        for key, (n, kwh, most, total, low, high) in meter_rollup(
            fleet.book.meter_rows.values(), width
        ).items()
    }
    given = keyed(
        fleet.bi,
        f"select meter_id, {unit}, readings, kwh_ac, kwh_ac_max, voltage_avg_v, voltage_min_v, "  # noqa: S608
        f"voltage_max_v from bi.meter_{suffix}",
    )
    assert differences(meters, given) == []
    vehicles = {
        key: (n, kwh, most, total / n, *others)
        for key, (n, kwh, most, total, *others) in vehicle_rollup(
            fleet.book.vehicle_rows.values(), width
        ).items()
    }
    given = keyed(
        fleet.bi,
        f"select vehicle_id, {unit}, readings, kwh_dc, kwh_dc_max, battery_temp_avg_c, "  # noqa: S608
        "battery_temp_min_c, battery_temp_max_c, soc_min_percent, soc_max_percent, soc_first_percent, "
        f"soc_last_percent from bi.vehicle_{suffix}",
    )
    assert differences(vehicles, given) == []
    assert max(key[1] for key in given) >= bin_of(datetime.now(UTC) - HOUR, width)


@pytest.mark.parametrize("unit", WIDTHS)
def test_vehicles_by_hour_and_by_day(fleet: Fleet, unit: str) -> None:
    """What was billed to each vehicle and what arrived, cut hours and a silent vehicle included."""
    edges = edges_of(fleet.book, WIDTHS[unit])
    expected = by_vehicle(fleet.book, edges)
    statement = (
        f"select vehicle_id, {unit}, kwh_ac, kwh_dc, kwh_lost, efficiency_ratio, meter_readings, "  # noqa: S608
        f"vehicle_readings from bi.vehicle_efficiency_{SUFFIX[unit]}"
    )
    assert differences(expected, keyed(fleet.bi, statement)) == []
    assert any(key[0] == "car-4" for key in expected)
    some = keyed(
        fleet.bi, f"{statement} where vehicle_id = 'car-1' and {unit} >= %s and {unit} < %s", START, END
    )
    assert some
    for (vehicle, start), row in some.items():
        exact = fleet.bi.execute(
            "select kwh_ac, kwh_dc, kwh_lost, efficiency_ratio, meter_readings, vehicle_readings "
            "from bi.vehicle_performance(%s, %s, %s)",
            (vehicle, start, start + WIDTHS[unit]),
        ).fetchone()
        assert differences({start: row}, {start: exact or ()}) == []


@pytest.mark.parametrize("unit", WIDTHS)
def test_chargers_by_hour_and_by_day(fleet: Fleet, unit: str) -> None:
    """AC and DC of each charger while a vehicle drew from it and no other; a row wherever it reported."""
    width = WIDTHS[unit]
    start = START if unit == "day" else START + DAY
    end = END if unit == "day" else START + DAY + 16 * HOUR
    expected = {}
    moment = start
    while moment < end:
        energy: dict[str, list[Any]] = defaultdict(lambda: [0.0, 0, 0.0, 0])
        for (_, meter), pair in fleet.book.pairs((moment, moment + width)).items():
            energy[meter] = [a + b for a, b in zip(energy[meter], pair, strict=False)]
        for meter in {m for m, at in fleet.book.meter_rows if bin_of(at, width) == moment}:
            ac, n_ac, dc, n_dc = energy[meter]
            expected[meter, moment] = (ac, dc, ac - dc, dc / ac if ac else None, n_ac, n_dc)
        moment += width
    given = keyed(
        fleet.bi,
        f"select meter_id, {unit}, kwh_ac, kwh_dc, kwh_lost, efficiency_ratio, meter_readings, "  # noqa: S608
        f"vehicle_readings from bi.charger_efficiency_{SUFFIX[unit]} where {unit} >= %s and {unit} < %s",
        start,
        end,
    )
    assert differences(expected, given) == []
    assert min(row[3] for row in given.values() if row[3]) < 0.85


@pytest.mark.parametrize("unit", WIDTHS)
def test_the_fleet_by_hour_and_by_day(fleet: Fleet, unit: str) -> None:
    """The fleet's figures, one row for each hour or day in which a vehicle drew or reported."""
    edges = edges_of(fleet.book, WIDTHS[unit])
    expected = {key: row for key, row in of_fleet(fleet.book, edges).items() if row[-1]}
    given = keyed(
        fleet.bi,
        f"select 'fleet', {unit}, kwh_ac, kwh_dc, kwh_lost, efficiency_ratio, meter_readings, "  # noqa: S608
        f"vehicle_readings, vehicles from bi.fleet_{SUFFIX[unit]}",
    )
    assert differences(expected, given) == []


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/Sao_Paulo"])
def test_series_are_exact_in_any_zone(fleet: Fleet, zone: str) -> None:
    """Whole local days that touch the span, cut hours taken apart, for the fleet and for one vehicle."""
    midnights = [datetime(2025, 6, day, tzinfo=ZoneInfo(zone)).astimezone(UTC) for day in (1, 2, 3, 4)]
    span = (midnights[0] + timedelta(hours=5), midnights[3] - timedelta(microseconds=1), "day", zone)
    columns = "window_start, kwh_ac, kwh_dc, kwh_lost, efficiency_ratio, meter_readings, vehicle_readings"
    given = keyed(
        fleet.bi,
        f"select 'fleet', {columns}, vehicles from bi.fleet_series(%s, %s, %s, %s)",  # noqa: S608
        *span,
    )
    assert differences(of_fleet(fleet.book, midnights), given) == []
    given = keyed(
        fleet.bi,
        f"select 'car-1', {columns} from bi.vehicle_series('car-1', %s, %s, %s, %s)",  # noqa: S608
        *span,
    )
    expected = {key: row for key, row in by_vehicle(fleet.book, midnights).items() if key[0] == "car-1"}
    assert differences(expected, given) == []


def test_fleet_and_charger_performance(fleet: Fleet) -> None:
    """One row a vehicle and one a pair, exact over a window that cuts hours at both ends."""
    window = (START + timedelta(hours=8, minutes=31), START + timedelta(days=2, minutes=1, microseconds=7))
    given = keyed(
        fleet.bi,
        "select vehicle_id, %s::timestamptz, kwh_ac, kwh_dc, kwh_lost, efficiency_ratio, meter_readings, "
        "vehicle_readings from bi.fleet_performance(%s, %s)",
        window[0],
        *window,
    )
    assert differences(by_vehicle(fleet.book, [*window]), given) == []
    pairs = fleet.bi.execute(
        "select vehicle_id, meter_id, kwh_ac, meter_readings, kwh_dc, vehicle_readings, connected_h * 3600 "
        "from bi.charger_performance(%s, %s)",
        window,
    ).fetchall()
    assert differences(fleet.book.pairs(window), {row[:2]: row[2:] for row in pairs}) == []


@pytest.mark.parametrize("refreshed", [False, True])
def test_a_charger_whose_meter_falls_silent(postgres: Postgres, database: str, refreshed: bool) -> None:
    """What arrives meanwhile is in the hours and in the days, which add up to the whole window."""
    begin, end = START + timedelta(hours=9, minutes=30), START + timedelta(days=2, minutes=40)
    # The vehicle reports before the session and in it, but for half a day; the meter tells of two hours in it
    # and of one afterwards.
    moments = [
        START + timedelta(minutes=minute)
        for minute in range(0, 3 * 24 * 60, 20)
        if not 18 * 60 <= minute < 30 * 60
    ]
    told = [START + timedelta(hours=hour, minutes=minute) for hour in (10, 12, 60) for minute in (0, 30)]
    with psycopg.connect(postgres.url("fleetwatt_service", database)) as connection:
        connection.execute(
            "insert into charging_session (vehicle_id, meter_id, during) "
            "values ('car-s', 'm-s', tstzrange(%s, %s)), ('car-t', 'm-t', tstzrange(%s, null))",
            (begin, end, begin),
        )
        bi_fleet.store(connection, [VehicleReading("car-s", moment, 50.0, 0.5, 20.0) for moment in moments])
        bi_fleet.store(connection, [MeterReading("m-s", moment, 0.6, 230.0) for moment in told])
    if refreshed:
        bi_fleet.refresh(postgres, database)
    inside = [moment for moment in moments if begin <= moment < end]
    columns = "kwh_ac, kwh_dc, meter_readings, vehicle_readings"
    with psycopg.connect(postgres.url("fleetwatt_bi", database), autocommit=True) as bi:
        whole = bi.execute(
            f"select {columns} from bi.charger_performance(%s, %s)".encode(),  # noqa: S608 - our own names
            (START, END),
        ).fetchone()
        assert whole == pytest.approx((4 * 0.6, len(inside) * 0.5, 4, len(inside)))
        for unit, suffix in SUFFIX.items():
            rows = keyed(
                bi,
                f"select meter_id, {unit}, {columns} from bi.charger_efficiency_{suffix}",  # noqa: S608
            )
            sums = tuple(math.fsum(column) for column in zip(*rows.values(), strict=True))
            assert sums == pytest.approx(whole)
            assert {*rows} == {("m-s", bin_of(moment, WIDTHS[unit])) for moment in (*inside, *told)}


def test_what_a_month_starts_with(fleet: Fleet) -> None:
    """Weeks start on Mondays and months on their first, in the zone; a day may lack an hour or midnight."""

    def starts(*arguments: Any) -> list[datetime]:
        rows = fleet.bi.execute("select window_start from bi.fleet_series(%s, %s, %s, %s)", arguments)
        return [row[0].astimezone(UTC) for row in rows.fetchall()]

    rome = ZoneInfo("Europe/Rome")
    begin, end = datetime(2025, 3, 29, 7, tzinfo=rome), datetime(2025, 4, 2, tzinfo=rome)
    assert starts(begin, end, "month", "Europe/Rome") == [
        datetime(2025, month, 1, tzinfo=rome) for month in (3, 4)
    ]
    assert starts(begin, end, "week", "Europe/Rome") == [
        datetime(2025, 3, day, tzinfo=rome) for day in (24, 31)
    ]
    days = starts(begin, end, "day", "Europe/Rome")
    assert [after - before for before, after in pairwise(days)] == [DAY, 23 * HOUR, DAY]
    # In Sao Paulo the clock went from 23:59:59 to 01:00; the days after it start at midnight again.
    sao_paulo = ZoneInfo("America/Sao_Paulo")
    days = starts(
        datetime(2018, 11, 3, tzinfo=sao_paulo),
        datetime(2018, 11, 6, tzinfo=sao_paulo),
        "day",
        "America/Sao_Paulo",
    )
    assert [day.astimezone(sao_paulo).hour for day in days] == [0, 1, 0]
    # On the Azores it went back onto midnight: that day has 25 hours and comes once, wherever one begins.
    azores = ZoneInfo("Atlantic/Azores")
    for hour in (0, 1, 25):
        days = starts(
            datetime(2025, 10, 26, tzinfo=azores).astimezone(UTC) + timedelta(hours=hour - 1),
            datetime(2025, 10, 27, 0, 30, tzinfo=azores),
            "day",
            "Atlantic/Azores",
        )
        expected = [datetime(2025, 10, day, tzinfo=azores).astimezone(UTC) for day in (25, 26, 27)]
        assert days == expected[hour > 0 :]
    assert expected[2] - expected[1] == 25 * HOUR
    # On Lord Howe by half an hour: one hour of 90 minutes.
    hours = starts(
        datetime(2025, 4, 5, 13, 50, tzinfo=UTC),
        datetime(2025, 4, 5, 16, tzinfo=UTC),
        "hour",
        "Australia/Lord_Howe",
    )
    assert [after - before for before, after in pairwise(hours)] == [HOUR, 1.5 * HOUR]


def test_arguments_that_make_no_sense(fleet: Fleet) -> None:
    """A null gives no row, never the energy of all; other nonsense is refused."""
    for call in (
        "vehicle_performance(null, %s, %s)",
        "vehicle_series(null, %s, %s, 'day')",
        "vehicle_series('car-1', %s, %s, null)",
    ):
        assert fleet.bi.execute(f"select * from bi.{call}".encode(), (START, END)).fetchall() == []  # noqa: S608
    assert fleet.bi.execute("select * from bi.fleet_performance(null, null)").fetchall() == []
    for arguments in (
        (START, END, "fortnight", "UTC"),
        (END, START, "day", "UTC"),
        (START, START, "day", "UTC"),
        (START - 9999 * DAY, END, "hour", "UTC"),
        (START, END, "day", "Mars/Olympus"),
    ):
        with pytest.raises(errors.InvalidParameterValue):
            fleet.bi.execute("select * from bi.fleet_series(%s, %s, %s, %s)", arguments)


def test_when_a_late_reading_shows(fleet: Fleet, postgres: Postgres, database: str) -> None:
    """Days and functions have it at once, hours after the next refresh; freshness tells of it meanwhile."""
    late = START + timedelta(hours=10, minutes=1)
    key = ("car-1", bin_of(late, HOUR))
    hourly = "select vehicle_id, hour, kwh_ac from bi.vehicle_efficiency_hourly"
    daily = "select vehicle_id, day, kwh_ac from bi.vehicle_efficiency_daily"
    before = keyed(fleet.bi, hourly)[key][0], keyed(fleet.bi, daily)["car-1", START][0]
    with psycopg.connect(postgres.url("fleetwatt_service", database)) as connection:
        bi_fleet.store(
            connection, [MeterReading("m-1", late, 100.0, 230.0), VehicleReading("car-1", late, 1, 90.0, 20)]
        )
    freshness = "select stream, stale_hours, oldest_stale_hour from bi.rollup_freshness order by stream"
    assert fleet.bi.execute(freshness).fetchall() == [("meter", 1, key[1]), ("vehicle", 1, key[1])]
    assert keyed(fleet.bi, hourly)[key][0] == pytest.approx(before[0])
    assert keyed(fleet.bi, daily)["car-1", START][0] == pytest.approx(before[1] + 100)
    bi_fleet.refresh(postgres, database)
    assert keyed(fleet.bi, hourly)[key][0] == pytest.approx(before[0] + 100)
    assert fleet.bi.execute(freshness).fetchall() == [("meter", 0, None), ("vehicle", 0, None)]


def test_before_the_first_refresh(postgres: Postgres, database: str) -> None:
    """With nothing rolled up the views say the same, summed up from the readings."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as owner:
        owner.execute(
            "insert into charging_session (vehicle_id, meter_id, during) "
            "values ('c', 'm', '[2025-06-01 00:30Z,2025-06-01 02:30Z)')"
        )
        owner.execute(
            "insert into meter_reading select 'm', t, 1, 230 "
            "from generate_series('2025-06-01 00:00Z'::timestamptz, '2025-06-01 03:00Z', '10 minutes') as t"
        )
    with psycopg.connect(postgres.url("fleetwatt_bi", database), autocommit=True) as connection:
        rows = connection.execute("select kwh_ac from bi.vehicle_efficiency_hourly order by hour").fetchall()
        assert rows == [(3.0,), (6.0,), (3.0,)]
        assert connection.execute("select kwh_ac from bi.fleet_daily").fetchall() == [(12.0,)]
        assert connection.execute("select kwh_ac from bi.meter_daily").fetchall() == [(19.0,)]


def test_sessions_and_latest_states(fleet: Fleet) -> None:
    """Sessions with their length, and who reported when."""
    rows = fleet.bi.execute(
        "select session_id, vehicle_id, meter_id, started_at, ended_at, is_open, duration_h from bi.sessions"
    ).fetchall()
    given = {row[0]: row[1:] for row in rows}
    assert len(given) == len(fleet.book.sessions)
    for session in fleet.book.sessions:
        vehicle, meter, start, end, is_open, duration_h = given[session.session_id]
        assert (vehicle, meter, start, end) == (session.vehicle, session.meter, session.start, session.end)
        assert is_open == (session.end is None)
        length = (session.end or datetime.now(UTC)) - session.start
        assert duration_h == pytest.approx(length / HOUR, abs=0.1)
    silent = dict(fleet.bi.execute("select vehicle_id, silent_s from bi.vehicle_latest").fetchall())
    assert silent["car-2"] < 600 < DAY.total_seconds() < silent["car-1"]
    silent = dict(fleet.bi.execute("select meter_id, silent_s from bi.meter_latest").fetchall())
    assert silent["m-2"] < 600 < DAY.total_seconds() < silent["m-1"]


def test_alerts_open_and_closed(fleet: Fleet, postgres: Postgres, database: str) -> None:
    """The failing pair has an open alert with its energy; its session corrected away, a closed one."""
    asked = (
        "select vehicle_id, meter_id, kind, is_open, close_reason, kwh_ac, kwh_dc, kwh_lost, "
        "efficiency_ratio, open_h >= 0 from bi.alerts"
    )
    start = fleet.book.sessions[1].start
    ((ac, _, dc, _, _),) = (
        pair for name, pair in fleet.book.pairs((start, start + DAY)).items() if name == ("car-6", "m-6")
    )
    [row] = fleet.bi.execute(asked).fetchall()
    assert row[:5] == ("car-6", "m-6", "low_efficiency", True, None)
    assert row[5:9] == pytest.approx((ac, dc, ac - dc, 0.7))
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as owner:
        owner.execute("delete from charging_session where session_id = 'failing'")
        owner.execute("select evaluate_alerts()")
    [row] = fleet.bi.execute(asked).fetchall()
    assert row[3:5] == (False, "withdrawn")
    assert row[-1]

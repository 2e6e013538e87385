"""Real measurements as the schema bi shows them: a house's meter and a DC charge, against the files.

The files lie beside the checkout, not in it; without them these tests are skipped, visibly.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from service.readings import MeterReading, Reading, VehicleReading
from tests.service.test_real_input import CHARGE_END, CHARGE_START, DATA, household, minutes
from tests.support import bi_fleet
from tests.support.reckoning import DAY, HOUR, bin_of
from tests.support.servers import Postgres

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real measurements is not here")

# When the house's meter was car-9's; within an hour at both ends.
HOUSE = (datetime(2006, 12, 17, 5, 17, 30, tzinfo=UTC), datetime(2006, 12, 30, 21, 44, tzinfo=UTC))


def charge() -> list[Reading]:
    """Read both sides of the DC charge."""
    with (DATA / "dc_session_vehicle_1min.csv").open() as file:
        cars: list[Reading] = [
            VehicleReading(
                "car-1",
                datetime.fromisoformat(row["timestamp"]),
                float(row["soc"]),
                float(row["kwh"]),
                float(row["battery_temp"]),
            )
            for row in csv.DictReader(file)
        ]
    return cars + [
        MeterReading("charger-1", datetime.fromisoformat(row["timestamp"]), float(row["kwh"]), 400.0)
        for row in minutes("dc_session_meter_1min.csv")
    ]


@pytest.fixture
def bi(postgres: Postgres, database: str) -> Iterator[psycopg.Connection[Any]]:
    """Give a connection of the role to a database with the files in it, in no order, rolled up."""
    readings = [MeterReading("house-1", at, kwh, 230.0) for at, kwh in household()] + charge()
    with psycopg.connect(postgres.url("fleetwatt_service", database)) as connection:
        bi_fleet.store(connection, sorted(readings, key=lambda row: str(row.recorded_at)[::-1]))
        for name, vehicle, meter, start, end in (
            ("charge", "car-1", "charger-1", CHARGE_START, CHARGE_END),
            ("house", "car-9", "house-1", *HOUSE),
        ):
            connection.execute(
                "insert into charging_session (session_id, vehicle_id, meter_id, during) "
                "values (%s, %s, %s, tstzrange(%s, %s))",
                (name, vehicle, meter, start, end),
            )
    bi_fleet.refresh(postgres, database)
    with psycopg.connect(postgres.url("fleetwatt_bi", database), autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize(("unit", "view"), [("hour", "hourly"), ("day", "daily")])
def test_each_hour_and_day_of_the_house(bi: psycopg.Connection[Any], unit: str, view: str) -> None:
    """The house's meter and what its session billed, bin by bin, and the totals over all of it."""
    width: timedelta = {"hour": HOUR, "day": DAY}[unit]
    metered, billed = defaultdict(list), defaultdict(list)
    for at, kwh in household():
        metered[bin_of(at.astimezone(UTC), width)].append(kwh)
        if HOUSE[0] <= at < HOUSE[1]:
            billed[bin_of(at.astimezone(UTC), width)].append(kwh)
    for expected, statement in (
        (metered, f"select {unit}, kwh_ac, readings from bi.meter_{view} where meter_id = 'house-1'"),  # noqa: S608
        (
            billed,
            (
                f"select {unit}, kwh_ac, meter_readings from bi.vehicle_efficiency_{view} "  # noqa: S608
                "where vehicle_id = 'car-9'"
            ),
        ),
        (
            billed,
            (
                f"select {unit}, kwh_ac, meter_readings from bi.charger_efficiency_{view} "  # noqa: S608
                "where meter_id = 'house-1' and meter_readings > 0"
            ),
        ),
        (billed, f"select {unit}, kwh_ac, meter_readings from bi.fleet_{view} where {unit} < '2007-02-01'"),  # noqa: S608
    ):
        given = {row[0].astimezone(UTC): row[1:] for row in bi.execute(statement.encode()).fetchall()}
        assert given.keys() == expected.keys(), statement
        for start, (kwh, count) in given.items():
            assert kwh == pytest.approx(math.fsum(expected[start]), rel=1e-9), (statement, start)
            assert count == len(expected[start])


def test_the_dc_charge(bi: psycopg.Connection[Any]) -> None:
    """5.443621 kWh in, 5.344335 kWh out, ratio 0.98176, whichever way one asks."""
    start, end = (datetime.fromisoformat(moment) for moment in (CHARGE_START, CHARGE_END))
    for statement in (
        "select kwh_ac, kwh_dc, efficiency_ratio from bi.vehicle_performance('car-1', %s, %s)",
        "select kwh_ac, kwh_dc, efficiency_ratio from bi.charger_performance(%s, %s)",
        (
            "select sum(kwh_ac), sum(kwh_dc), sum(kwh_dc) / sum(kwh_ac) from bi.charger_efficiency_hourly "
            "where meter_id = 'charger-1' and hour >= %s - interval '1 hour' and hour < %s"
        ),
        (
            "select sum(kwh_ac), sum(kwh_dc), sum(kwh_dc) / sum(kwh_ac) from bi.charger_efficiency_daily "
            "where meter_id = 'charger-1' and day >= %s - interval '1 day' and day < %s"
        ),
    ):
        row = bi.execute(statement.encode(), (start, end)).fetchone()
        assert row == pytest.approx((5.443621, 5.344335, 0.98176), abs=5e-6), statement
    hours = bi.execute(
        "select sum(kwh_ac), sum(kwh_dc) from bi.vehicle_efficiency_hourly where vehicle_id = 'car-1'"
    ).fetchone()
    with (DATA / "dc_session_vehicle_1min.csv").open() as file:
        delivered = math.fsum(float(row["kwh"]) for row in csv.DictReader(file))
    assert hours == pytest.approx((5.443621, delivered), abs=1e-6)

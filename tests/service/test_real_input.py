"""Real measurements through the whole engine, against sums computed from the files by themselves.

The files lie beside the checkout, not in it; without them these tests are skipped, visibly.
"""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import AsyncTestClient
from psycopg import AsyncConnection

from service.settings import Settings

DATA = Path(__file__).parents[3] / "shared/data"
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real measurements is not here"),
]

Api = AsyncTestClient[Any]
# Sceaux in December: the file's local time is one hour ahead of UTC throughout.
PARIS_WINTER = timezone(timedelta(hours=1))
CHARGE_START, CHARGE_END = "2023-05-16T11:44:00Z", "2023-05-16T12:06:00Z"


Importer = Callable[..., str]


@pytest.fixture
def fleetwatt(settings: Settings) -> Importer:
    """Run `fleetwatt import` on the test's database, and give what it printed."""

    def run(*arguments: str) -> str:
        # Four minutes of the household hold no values: a refused line is an exit code unless it may be.
        result = subprocess.run(
            [sys.executable, "-m", "service", "import", "--no-strict", *arguments],
            env={**os.environ, "FLEETWATT_DATABASE_URL": settings.database_url},
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


def household() -> list[tuple[datetime, float]]:
    """Read (time, kWh of the minute) of each good row, without any code of the service."""
    rows = []
    with (DATA / "meter_household_1min.csv").open() as file:
        for row in csv.DictReader(file):
            if row["Global_active_power"] == "?":
                continue
            local = datetime.strptime(f"{row['Date']} {row['Time']}", "%d/%m/%Y %H:%M:%S")  # noqa: DTZ007
            rows.append((local.replace(tzinfo=PARIS_WINTER), float(row["Global_active_power"]) / 60))
    return rows


def minutes(file: str) -> list[dict[str, str]]:
    """Read one of the two files of the DC charge."""
    with (DATA / file).open() as source:
        return list(csv.DictReader(source))


async def performance(api: Api, vehicle: str, start: str, end: str) -> dict[str, Any]:
    """Ask the HTTP API for an energy summary."""
    response = await api.get(f"/v1/analytics/performance/{vehicle}", params={"from": start, "to": end})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def start_session(api: Api, vehicle: str, meter: str, start: str, end: str | None) -> None:
    """Store a charging session."""
    body = {"vehicleId": vehicle, "meterId": meter, "startedAt": start, "endedAt": end}
    response = await api.post("/v1/sessions", json=body)
    assert response.status_code == 201, response.text


def import_household(fleetwatt: Importer) -> str:
    """Import the household's meter as the README shows it."""
    return fleetwatt(
        str(DATA / "meter_household_1min.csv"),
        *("--meter-id", "=house-1", "--time", "Date,Time", "--time-format", "%d/%m/%Y %H:%M:%S"),
        *("--tz", "Europe/Paris", "--kw", "Global_active_power", "--every", "60s", "--voltage", "Voltage"),
    )


def import_charge(fleetwatt: Importer) -> None:
    """Import both sides of the DC charge."""
    fleetwatt(
        str(DATA / "dc_session_meter_1min.csv"),
        "--meter-id",
        "=charger-1",
        "--kwh",
        "kwh",
        "--voltage",
        "voltage",
    )
    fleetwatt(
        str(DATA / "dc_session_vehicle_1min.csv"),
        *("--vehicle-id", "=car-1", "--kwh", "kwh", "--soc", "soc", "--battery-temp", "battery_temp"),
    )


async def test_the_dc_charge(api: Api, fleetwatt: Importer) -> None:
    """5.443621 kWh in, 5.344335 kWh out, ratio 0.98176; and each minute's edge as the files have it."""
    import_charge(fleetwatt)
    await start_session(api, "car-1", "charger-1", CHARGE_START, CHARGE_END)
    answer = await performance(api, "car-1", CHARGE_START, CHARGE_END)
    assert answer["totalAcConsumedKwh"] == pytest.approx(5.443621, abs=1e-6)
    assert answer["totalDcDeliveredKwh"] == pytest.approx(5.344335, abs=1e-6)
    assert answer["efficiencyRatio"] == pytest.approx(0.98176, abs=5e-6)
    meter, car = minutes("dc_session_meter_1min.csv"), minutes("dc_session_vehicle_1min.csv")
    for first in range(0, 20, 3):
        for last in range(first + 1, 24, 5):
            start = datetime(2023, 5, 16, 11, 44, tzinfo=UTC) + timedelta(minutes=first)
            end = datetime(2023, 5, 16, 11, 44, tzinfo=UTC) + timedelta(minutes=last)
            answer = await performance(api, "car-1", start.isoformat(), end.isoformat())
            session_end = datetime.fromisoformat(CHARGE_END)
            billed = math.fsum(
                float(row["kwh"])
                for row in meter
                if start <= datetime.fromisoformat(row["timestamp"]) < min(end, session_end)
            )
            arrived = [row for row in car if start <= datetime.fromisoformat(row["timestamp"]) < end]
            assert answer["totalAcConsumedKwh"] == pytest.approx(billed, abs=1e-6)
            assert answer["totalDcDeliveredKwh"] == pytest.approx(
                math.fsum(float(row["kwh"]) for row in arrived), abs=1e-6
            )
            assert answer["readingsCount"]["vehicle"] == len(arrived)
            assert answer["avgBatteryTemp"] == pytest.approx(
                math.fsum(float(row["battery_temp"]) for row in arrived) / len(arrived), abs=1e-6
            )


async def test_the_household_meter(
    api: Api, fleetwatt: Importer, owner: AsyncConnection[dict[str, Any]]
) -> None:
    """Two weeks of a house: rows, refused lines and the energy of chosen windows equal the file's."""
    output = import_household(fleetwatt)
    rows = household()
    assert f"accepted {len(rows):,}".replace(",", "") in output.replace(",", "")
    [stored] = await (
        await owner.execute("select count(*) as n, sum(kwh_consumed_ac) as kwh from meter_reading")
    ).fetchall()
    assert stored["n"] == len(rows) == 21_992
    assert stored["kwh"] == pytest.approx(math.fsum(kwh for _, kwh in rows), rel=1e-12)
    await start_session(api, "car-9", "house-1", "2006-12-01T00:00:00Z", None)
    windows = [
        ("2006-12-16T17:24:00+01:00", "2006-12-31T23:59:00+01:00"),
        ("2006-12-16T17:24:00+01:00", "2006-12-31T23:59:01+01:00"),
        ("2006-12-20T00:00:00+01:00", "2006-12-21T00:00:00+01:00"),
        ("2006-12-23T23:30:00Z", "2006-12-24T07:15:30Z"),
        ("2006-12-28T10:07:00+05:30", "2006-12-28T10:08:00+05:30"),
        ("2007-01-01T00:00:00Z", "2007-01-02T00:00:00Z"),
    ]
    for start, end in windows:
        answer = await performance(api, "car-9", start, end)
        inside = [
            kwh for at, kwh in rows if datetime.fromisoformat(start) <= at < datetime.fromisoformat(end)
        ]
        assert answer["readingsCount"]["meter"] == len(inside)
        assert answer["totalAcConsumedKwh"] == pytest.approx(math.fsum(inside), abs=1e-6)
        assert answer["efficiencyRatio"] == (0.0 if inside else None)


async def test_importing_again_changes_nothing(
    fleetwatt: Importer, owner: AsyncConnection[dict[str, Any]]
) -> None:
    """The second import of a file counts every reading as a duplicate: an import can be resumed."""
    import_charge(fleetwatt)
    counted = "select (select count(*) from meter_reading) as m, (select count(*) from vehicle_reading) as v"
    before = await (await owner.execute(counted)).fetchall()
    import_charge(fleetwatt)
    assert await (await owner.execute(counted)).fetchall() == before == [{"m": 21, "v": 26}]
    [sums] = await (
        await owner.execute(
            "select sum(accepted) as a, sum(duplicates) as d, sum(conflicts) as c from ingest_minute"
        )
    ).fetchall()
    assert {name: int(value) for name, value in sums.items()} == {"a": 47, "d": 47, "c": 0}

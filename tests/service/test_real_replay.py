"""Real measurements in no order, with repeats, between refreshes: every hour, day and window of them.

The files lie beside the checkout, not in it; without them these tests are skipped, visibly.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from litestar.testing import AsyncTestClient
from psycopg import AsyncConnection

from tests.service.test_real_input import DATA, household, minutes, start_session

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real measurements is not here"),
]

Api = AsyncTestClient[Any]
Owner = AsyncConnection[dict[str, Any]]
BATCH: Final = 2_000
MINUTE: Final = timedelta(minutes=1)
# The house's session ends within an hour, and another vehicle has its meter for the rest.
HOUSE_START, HANDED_OVER = (
    datetime(2006, 12, 17, 3, 20, tzinfo=UTC),
    datetime(2006, 12, 27, 18, 47, tzinfo=UTC),
)
CHARGE: Final = (datetime(2023, 5, 16, 11, 44, tzinfo=UTC), datetime(2023, 5, 16, 12, 6, tzinfo=UTC))
# What is asked for: the first and the last hour of it are cut.
HOUSE: Final = (datetime(2006, 12, 16, 16, 24, tzinfo=UTC), datetime(2006, 12, 31, 23, 7, tzinfo=UTC))
ASKED: Final = {
    "car-9": HOUSE,
    "car-8": HOUSE,
    "car-1": (CHARGE[0] - 2 * MINUTE, CHARGE[1] + 90 * MINUTE),
}


class Energy:
    """Timestamps and kWh of one side of one vehicle, and sums over any window of them."""

    def __init__(self, rows: Iterable[tuple[datetime, float]]) -> None:
        """Sort rows by time."""
        ordered = sorted(rows)
        self.at = [at for at, _ in ordered]
        self.kwh = [kwh for _, kwh in ordered]

    def of(self, start: datetime, end: datetime) -> tuple[float, int]:
        """Give the exact sum and the number of rows in [start, end)."""
        part = slice(bisect_left(self.at, start), bisect_left(self.at, end))
        return math.fsum(self.kwh[part]), len(self.kwh[part])


def payloads() -> list[dict[str, Any]]:
    """Give every reading of the house and of both sides of the charge, as devices would send them."""
    sent = [
        {"meterId": "house-1", "timestamp": at.isoformat(), "kwhConsumedAc": kwh, "voltage": 230}
        for at, kwh in household()
    ]
    sent += [
        {
            "meterId": "charger-1",
            "timestamp": row["timestamp"],
            "kwhConsumedAc": float(row["kwh"]),
            "voltage": float(row["voltage"]),
        }
        for row in minutes("dc_session_meter_1min.csv")
    ]
    sent += [
        {
            "vehicleId": "car-1",
            "timestamp": row["timestamp"],
            "kwhDeliveredDc": float(row["kwh"]),
            "soc": float(row["soc"]),
            "batteryTemp": float(row["battery_temp"]),
        }
        for row in minutes("dc_session_vehicle_1min.csv")
    ]
    return sent


async def replay(api: Api, owner: Owner, chosen: random.Random) -> None:
    """Send all of it shuffled, a fifth of it twice, in batches; refresh the rollups after each."""
    sent = payloads()
    repeats = chosen.sample(sent, len(sent) // 5)
    mixed = sent + repeats
    chosen.shuffle(mixed)
    accepted = duplicates = 0
    for first in range(0, len(mixed), BATCH):
        response = await api.post("/v1/telemetry", json=mixed[first : first + BATCH])
        assert response.status_code == 200, response.text
        accepted += response.json()["accepted"]
        duplicates += response.json()["duplicates"]
        await owner.execute("call refresh_rollups()")
    assert (accepted, duplicates) == (len(sent), len(repeats))


def expected() -> dict[str, tuple[Energy, Energy]]:
    """Give AC and DC of each vehicle, straight from the files."""
    house = household()
    charger = [
        (datetime.fromisoformat(r["timestamp"]), float(r["kwh"]))
        for r in minutes("dc_session_meter_1min.csv")
    ]
    car = [
        (datetime.fromisoformat(r["timestamp"]), float(r["kwh"]))
        for r in minutes("dc_session_vehicle_1min.csv")
    ]
    return {
        "car-9": (Energy(row for row in house if HOUSE_START <= row[0] < HANDED_OVER), Energy([])),
        "car-8": (Energy(row for row in house if row[0] >= HANDED_OVER), Energy([])),
        "car-1": (Energy(row for row in charger if CHARGE[0] <= row[0] < CHARGE[1]), Energy(car)),
    }


def bins(start: datetime, end: datetime, width: str, zone: ZoneInfo) -> list[tuple[datetime, datetime]]:
    """Give a zone's hours or days in [start, end), the first and last one cut; no clock changes there."""
    step = timedelta(hours=1) if width == "hour" else timedelta(days=1)
    local = start.astimezone(zone).replace(minute=0, second=0)
    if width == "day":
        local = local.replace(hour=0)
    edges = []
    while local < end:
        edges.append(max(local, start))
        local += step
    return list(zip(edges, [*edges[1:], end], strict=True))


async def compare_series(api: Api, width: str, name: str) -> None:
    """Hold each vehicle's hours or days of a zone, and the fleet's, against the files."""
    truth = expected()
    fleet: defaultdict[str, float] = defaultdict(float)
    for vehicle, (start, end) in ASKED.items():
        span = {"from": start.isoformat(), "to": end.isoformat(), "tz": name, "by": width}
        answer = (await api.get(f"/v1/analytics/vehicles/{vehicle}/hourly", params=span)).json()
        told = {datetime.fromisoformat(row["start"]): row for row in answer[f"{width}s"]}
        parts = bins(start, end, width, ZoneInfo(name))
        assert told.keys() == {first for first, _ in parts}
        for first, last in parts:
            ac, dc = (side.of(first, last) for side in truth[vehicle])
            row = told[first]
            assert datetime.fromisoformat(row["end"]) == last
            assert row["totalAcConsumedKwh"] == pytest.approx(ac[0], abs=1e-6), (vehicle, first)
            assert row["totalDcDeliveredKwh"] == pytest.approx(dc[0], abs=1e-6), (vehicle, first)
            assert row["readingsCount"] == {"vehicle": dc[1], "meter": ac[1]}, (vehicle, first)
            fleet[row["start"]] += row["totalAcConsumedKwh"]
    span = {"from": HOUSE[0].isoformat(), "to": HOUSE[1].isoformat(), "tz": name, "by": width}
    for row in (await api.get("/v1/analytics/fleet", params=span)).json()[f"{width}s"]:
        assert row["totalAcConsumedKwh"] == pytest.approx(fleet[row["start"]], abs=3e-6), row


async def compare_windows(owner: Owner, chosen: random.Random) -> int:
    """Hold vehicle_performance over windows drawn at random against the files; give how many were tried."""
    truth = expected()
    tried = 0
    for vehicle, (start, end) in ASKED.items():
        length = int((end - start) / MINUTE)
        for _ in range(150):
            first, last = sorted(chosen.sample(range(-60, length + 60), 2))
            offset = timedelta(seconds=chosen.choice([0, 0, 13]))
            window = (start + first * MINUTE + offset, start + last * MINUTE + offset)
            cursor = await owner.execute("select * from vehicle_performance(%s, %s, %s)", (vehicle, *window))
            [row] = await cursor.fetchall()
            ac, dc = (side.of(*window) for side in truth[vehicle])
            assert (row["kwh_ac"], row["kwh_dc"]) == pytest.approx((ac[0], dc[0]), rel=1e-9, abs=1e-9), window
            assert (row["meter_readings"], row["vehicle_readings"]) == (ac[1], dc[1]), window
            tried += 1
    return tried


async def test_every_hour_day_and_window(api: Api, owner: Owner) -> None:
    """However the readings came, each number is the file's: by hour and day of three zones, and by window."""
    chosen = random.Random(1)
    await start_session(api, "car-1", "charger-1", *(moment.isoformat() for moment in CHARGE))
    await start_session(api, "car-9", "house-1", HOUSE_START.isoformat(), None)
    await replay(api, owner, chosen)
    # Told late: the meter had been handed over.
    [session] = (await api.get("/v1/sessions", params={"vehicleId": "car-9"})).json()["sessions"]
    ended = await api.patch(f"/v1/sessions/{session['sessionId']}", json={"endedAt": HANDED_OVER.isoformat()})
    assert ended.status_code == 200, ended.text
    await start_session(api, "car-8", "house-1", HANDED_OVER.isoformat(), None)
    assert await (await owner.execute("select * from rollup_stale")).fetchall() == []
    for name in ("UTC", "Europe/Paris", "Asia/Kolkata"):
        for width in ("hour", "day"):
            await compare_series(api, width, name)
    assert await compare_windows(owner, chosen) == 450

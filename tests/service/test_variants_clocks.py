"""How much a clock that is off changes a sum: at most one reading an edge, at a reading a minute."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import Api, against_a_database, rfc3339

pytestmark = pytest.mark.anyio

POWER_KW: Final = 7.4
RATIO: Final = 0.9
ONE_READING_KWH: Final = POWER_KW / 60
START: Final = datetime(2026, 1, 31, 12, tzinfo=UTC)
OFFSETS_S: Final = (-59, -40, -20, -5, 0, 5, 20, 40, 59)


def moment(minute: float, offset_s: float = 0) -> str:
    """Write a moment, in minutes from the start of the charge, by a clock that is off."""
    return rfc3339(START + timedelta(minutes=minute, seconds=offset_s))


def charge(name: str, meter_off_s: float, vehicle_off_s: float) -> list[dict[str, Any]]:
    """Give both sides of an hour at 7.4 kW, a reading after each minute, by the devices' own clocks."""
    readings: list[dict[str, Any]] = []
    for minute in range(1, 61):
        readings += [
            {
                "meterId": f"m{name}",
                "kwhConsumedAc": ONE_READING_KWH,
                "voltage": 230,
                "timestamp": moment(minute, meter_off_s),
            },
            {
                "vehicleId": f"v{name}",
                "kwhDeliveredDc": ONE_READING_KWH * RATIO,
                "soc": 50,
                "batteryTemp": 25,
                "timestamp": moment(minute, vehicle_off_s),
            },
        ]
    return readings


async def sums(api: Api, name: str, start: float, end: float) -> tuple[float, float]:
    """Ask for AC and DC between two moments, in minutes from the start of the charge."""
    window = {"from": moment(start), "to": moment(end)}
    response = await api.get(f"/v1/analytics/performance/v{name}", params=window)
    assert response.status_code == 200, response.text
    answer = response.json()
    return answer["totalAcConsumedKwh"], answer["totalDcDeliveredKwh"]


async def test_a_clock_moves_one_reading_across_an_edge(api: Api) -> None:
    """A charge measured by clocks up to 59 s off, the meter's one way and the vehicle's the other."""
    changes = set[float]()
    for offset_s in OFFSETS_S:
        name = str(offset_s)
        response = await api.post("/v1/telemetry", json=charge(name, offset_s, -offset_s))
        assert response.json() == {"accepted": 120, "duplicates": 0, "rejected": []}
        session = {
            "vehicleId": f"v{name}",
            "meterId": f"m{name}",
            "startedAt": moment(0),
            "endedAt": moment(62),
        }
        assert (await api.post("/v1/sessions", json=session)).status_code == 201
        # No energy flows at these edges, so nothing can be moved across them.
        assert await sums(api, name, -10, 70) == pytest.approx((POWER_KW, POWER_KW * RATIO), abs=1e-6)
        # Both edges within the charge: what one gains the other loses, here all of it.
        inner = (30 * ONE_READING_KWH, 30 * ONE_READING_KWH * RATIO)
        assert await sums(api, name, 15.5, 45.5) == pytest.approx(inner, abs=1e-6)
        # One edge within the charge: off by the readings taken within the offset of it, on one side.
        ac_kwh, dc_kwh = await sums(api, name, 30.5, 70)
        true_kwh = 30 * ONE_READING_KWH
        ac_moved = round((ac_kwh - true_kwh) / ONE_READING_KWH, 4)
        dc_moved = round((dc_kwh - true_kwh * RATIO) / (ONE_READING_KWH * RATIO), 4)
        expected = 0 if abs(offset_s) <= 30 else 1 if offset_s > 0 else -1
        assert (ac_moved, dc_moved) == (expected, -expected), offset_s
        changes.add(round(ac_kwh - true_kwh, 6))
    assert changes == {0, 0.123333, -0.123333}


async def test_a_session_that_ends_at_its_last_reading(api: Api) -> None:
    """The end is excluded, and the reading stamped there left out: a session that ends later has it."""
    response = await api.post("/v1/telemetry", json=charge("", 0, 0))
    assert response.json()["accepted"] == 120
    session = {"vehicleId": "v", "meterId": "m", "startedAt": moment(0), "endedAt": moment(60)}
    created = await api.post("/v1/sessions", json=session)
    ac_kwh, _ = await sums(api, "", 0, 70)
    assert ac_kwh == pytest.approx(POWER_KW - ONE_READING_KWH, abs=1e-6)
    later = {"endedAt": moment(61)}
    assert (await api.patch(f"/v1/sessions/{created.json()['sessionId']}", json=later)).status_code == 200
    ac_kwh, _ = await sums(api, "", 0, 70)
    assert ac_kwh == pytest.approx(POWER_KW, abs=1e-6)


_METER: Final = itertools.count()


@against_a_database
@given(
    taken=st.dictionaries(st.integers(0, 900), st.floats(0, 1), min_size=1, max_size=20),
    offset_s=st.integers(-150, 150),
    first=st.integers(0, 600),
    length=st.integers(1, 600),
)
async def test_only_readings_near_an_edge_change_sides(
    api: Api, taken: dict[int, float], offset_s: int, first: int, length: int
) -> None:
    """Sums of the same readings by a right and by a wrong clock differ by those just beside the edges."""
    start, end = START + timedelta(seconds=first), START + timedelta(seconds=first + length)
    number, told = next(_METER), list[float]()
    for clock, off_s in (("right", 0), ("wrong", offset_s)):
        device = f"{clock}-{number}"
        readings = [
            {"meterId": device, "kwhConsumedAc": kwh, "voltage": 230, "timestamp": moment(0, second + off_s)}
            for second, kwh in taken.items()
        ]
        assert (await api.post("/v1/telemetry", json=readings)).json()["accepted"] == len(taken)
        session = {
            "vehicleId": device,
            "meterId": device,
            "startedAt": rfc3339(start),
            "endedAt": rfc3339(end),
        }
        assert (await api.post("/v1/sessions", json=session)).status_code == 201
        window = {"from": moment(-60), "to": moment(60)}
        answer = await api.get(f"/v1/analytics/performance/{device}", params=window)
        told.append(answer.json()["totalAcConsumedKwh"])

    def moved(edge_s: int) -> float:
        near = range(edge_s - offset_s, edge_s) if offset_s > 0 else range(edge_s, edge_s - offset_s)
        return sum(kwh for second, kwh in taken.items() if second in near)

    # A fast clock moves readings in at the start and out at the end, a slow one the other way round.
    gained, lost = moved(first), moved(first + length)
    change = gained - lost if offset_s > 0 else lost - gained
    right, wrong = told
    assert wrong - right == pytest.approx(change, abs=1e-5)
    assert abs(wrong - right) <= max(gained, lost) + 1e-5

"""Energy over HTTP, of a vehicle and of the fleet, held against sums of our own."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.readings import MeterReading, Reading, VehicleReading
from tests.support.http import charge, get, store
from tests.support.strategies import Api, against_a_database, at, meter, problem, rfc3339, vehicle, windows

pytestmark = pytest.mark.anyio

DAY: Final = "from=2026-01-31T00:00:00Z&to=2026-02-01T00:00:00Z"


async def test_performance(api: Api) -> None:
    """The summary as the contract has it: sums, loss, ratio, mean temperature, counts, threshold."""
    await charge(api, "v-1", "m-1", at(0), at(10))
    await store(api, *[meter(minute=n, kwh=0.2) for n in range(-2, 13)])
    await store(api, *[vehicle(minute=n, kwh=0.16, temp=20 + n) for n in range(10)])
    assert await get(api, f"/v1/analytics/performance/v-1?{DAY}") == {
        "vehicleId": "v-1",
        "periodStart": "2026-01-31T00:00:00Z",
        "periodEnd": "2026-02-01T00:00:00Z",
        "totalAcConsumedKwh": 2.0,
        "totalDcDeliveredKwh": 1.6,
        "energyLossKwh": 0.4,
        "efficiencyRatio": 0.8,
        "avgBatteryTemp": 24.5,
        "readingsCount": {"vehicle": 10, "meter": 10},
        "belowThreshold": True,
        "threshold": 0.85,
    }


async def test_session_edges(api: Api) -> None:
    """A session counts the reading at its start and not the one at its end; so does the window."""
    await charge(api, "v-1", "m-1", at(1), at(4))
    await charge(api, "v-2", "m-1", at(4), None)
    await store(api, vehicle(minute=-100), vehicle("v-2", minute=-100))
    await store(api, *[meter(minute=n, kwh=2**n) for n in range(8)])
    for vehicle_id, start, end, expected in [
        ("v-1", 0, 100, 2 + 4 + 8),
        ("v-2", 0, 100, 16 + 32 + 64 + 128),
        ("v-1", 1, 4, 2 + 4 + 8),
        ("v-1", 1.001, 4, 4 + 8),
        ("v-1", 0, 3, 2 + 4),
        ("v-1", 2, 3, 4),
        ("v-1", 2, 2, 0),
        ("v-1", 4, 100, 0),
        ("v-1", -100, 1, 0),
        ("v-2", 5, 7, 32 + 64),
        ("v-2", 6.5, 100, 128),
    ]:
        told = await get(
            api, f"/v1/analytics/performance/{vehicle_id}?from={rfc3339(at(start))}&to={rfc3339(at(end))}"
        )
        assert told["totalAcConsumedKwh"] == expected, (vehicle_id, start, end)


async def test_vehicles_without_a_meter(api: Api) -> None:
    """Without a meter AC is 0 and the ratio null; a session alone makes a vehicle known; else 404."""
    await store(api, vehicle("lonely", kwh=0.5))
    told = await get(api, f"/v1/analytics/performance/lonely?{DAY}")
    assert (told["totalAcConsumedKwh"], told["totalDcDeliveredKwh"], told["energyLossKwh"]) == (0, 0.5, -0.5)
    assert (told["efficiencyRatio"], told["belowThreshold"]) == (None, False)
    assert told["readingsCount"] == {"vehicle": 1, "meter": 0}
    await charge(api, "silent", "m-1", at(0), None)
    await store(api, meter(kwh=0.25))
    told = await get(api, f"/v1/analytics/performance/silent?{DAY}")
    assert (told["totalAcConsumedKwh"], told["totalDcDeliveredKwh"], told["avgBatteryTemp"]) == (
        0.25,
        0,
        None,
    )
    assert (told["efficiencyRatio"], told["belowThreshold"]) == (0, False)
    told = await get(
        api, "/v1/analytics/performance/lonely?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z"
    )
    assert told["readingsCount"] == {"vehicle": 0, "meter": 0}
    problem(await api.get(f"/v1/analytics/performance/m-1?{DAY}"), 404, "unknown_device")


async def test_the_last_day_unless_asked(api: Api) -> None:
    """Without a window the summary is of the last 24 hours."""
    now = datetime.now(UTC)
    recent, old = now - timedelta(hours=23), now - timedelta(hours=25)
    await store(api, VehicleReading("v-1", recent, 50, 0.25, 20), VehicleReading("v-1", old, 50, 4, 20))
    told = await get(api, "/v1/analytics/performance/v-1")
    assert (told["totalDcDeliveredKwh"], told["readingsCount"]["vehicle"]) == (0.25, 1)
    start, end = (datetime.fromisoformat(told[name]) for name in ("periodStart", "periodEnd"))
    assert end - start == timedelta(hours=24)


class World(NamedTuple):
    """Some vehicles and meters, who charged where and when (minutes, None while open), and readings."""

    sessions: list[tuple[int, int, int, int | None]]
    meter_readings: list[tuple[int, int, float]]
    vehicle_readings: list[tuple[int, int, float, float]]


kwh = st.floats(0, 2).map(lambda energy: round(energy, 5))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Draw two vehicles and three meters over four hours; a meter serves one vehicle at a time."""
    sessions: list[tuple[int, int, int, int | None]] = []
    for meter_number in range(3):
        edges: list[int] = sorted(draw(st.sets(st.integers(-30, 240), max_size=5)))
        ends = [*edges[1:], *([None] if draw(st.booleans()) else [])]
        for start, end in zip(edges, ends, strict=False):
            who: int | None = draw(st.sampled_from([0, 1, None]))
            if who is not None:
                sessions.append((who, meter_number, start, end))
    minutes = st.integers(-60, 300)
    drawn = draw(st.dictionaries(st.tuples(st.integers(0, 2), minutes), kwh, max_size=40))
    arrived = draw(
        st.dictionaries(
            st.tuples(st.integers(0, 1), minutes), st.tuples(kwh, st.floats(-60, 150)), max_size=20
        )
    )
    return World(
        sessions,
        [(number, minute, energy) for (number, minute), energy in drawn.items()],
        [(number, minute, energy, temp) for (number, minute), (energy, temp) in arrived.items()],
    )


_WORLD: Final = itertools.count()


@against_a_database
@given(worlds(), st.lists(windows(), min_size=1, max_size=5))
async def test_performance_equals_the_sum_over_raw_readings(
    api: Api, world: World, asked: list[tuple[datetime, datetime]]
) -> None:
    """For any sessions, readings and windows the summary is what adding up by hand gives."""
    name = f"w{next(_WORLD)}"
    for who, meter_number, first, last in world.sessions:
        ending = None if last is None else at(last)
        await charge(api, f"{name}-v{who}", f"{name}-m{meter_number}", at(first), ending)
    readings: list[Reading] = [
        MeterReading(f"{name}-m{number}", at(minute), energy, 230.0)
        for number, minute, energy in world.meter_readings
    ]
    readings += [
        VehicleReading(f"{name}-v{number}", at(minute), 50.0, energy, temp)
        for number, minute, energy, temp in world.vehicle_readings
    ]
    # Each vehicle is known, by a reading long before.
    await store(api, *readings, vehicle(f"{name}-v0", -100_000), vehicle(f"{name}-v1", -100_000))
    for (start, end), who in itertools.product(asked, (0, 1)):
        billed = [
            energy
            for number, minute, energy in world.meter_readings
            if start <= at(minute) < end
            and any(
                first <= minute and (last is None or minute < last)
                for vehicle_number, meter_number, first, last in world.sessions
                if (vehicle_number, meter_number) == (who, number)
            )
        ]
        arrived = [
            (energy, temp)
            for number, minute, energy, temp in world.vehicle_readings
            if number == who and start <= at(minute) < end
        ]
        ac, dc = math.fsum(billed), math.fsum(energy for energy, _ in arrived)
        told = await get(
            api, f"/v1/analytics/performance/{name}-v{who}?from={rfc3339(start)}&to={rfc3339(end)}"
        )
        assert told["readingsCount"] == {"vehicle": len(arrived), "meter": len(billed)}
        assert told["totalAcConsumedKwh"] == pytest.approx(ac, abs=1.1e-6)
        assert told["totalDcDeliveredKwh"] == pytest.approx(dc, abs=1.1e-6)
        assert told["energyLossKwh"] == pytest.approx(ac - dc, abs=1.1e-6)
        assert (told["efficiencyRatio"] is None) == (ac == 0)
        if ac > 0:
            assert told["efficiencyRatio"] == pytest.approx(dc / ac, rel=1e-9, abs=1.1e-6)
        mean = math.fsum(temp for _, temp in arrived) / len(arrived) if arrived else None
        assert told["avgBatteryTemp"] == (None if mean is None else pytest.approx(mean, abs=1.1e-6))


async def test_fleet(api: Api) -> None:
    """The fleet's energy is the sum over its vehicles, and the least efficient come first."""
    for number, efficiency in enumerate((0.9, 0.5, 0.7)):
        name = f"v-{number}"
        await charge(api, name, f"m-{number}", at(0), at(60))
        await store(api, *[meter(f"m-{number}", n, kwh=0.5) for n in range(10)])
        await store(api, *[vehicle(name, n, kwh=0.5 * efficiency) for n in range(10)])
    told = await get(api, f"/v1/analytics/fleet?{DAY}")
    assert [entry["vehicleId"] for entry in told["vehicles"]] == ["v-1", "v-2", "v-0"]
    assert [entry["efficiencyRatio"] for entry in told["vehicles"]] == [0.5, 0.7, 0.9]
    assert (told["totalAcConsumedKwh"], told["totalDcDeliveredKwh"]) == (15.0, 10.5)
    assert (told["energyLossKwh"], told["efficiencyRatio"], told["belowThreshold"]) == (4.5, 0.7, True)
    assert (told["periodStart"], told["periodEnd"]) == ("2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z")
    told = await get(api, f"/v1/analytics/fleet?{DAY}&limit=1")
    assert [entry["vehicleId"] for entry in told["vehicles"]] == ["v-1"]
    assert told["totalAcConsumedKwh"] == 15.0
    during = await get(api, f"/v1/analytics/fleet?from={rfc3339(at(0))}&to={rfc3339(at(5))}")
    assert (during["charging"], during["totalAcConsumedKwh"]) == (3, 7.5)


async def test_fleet_counts_every_vehicle(api: Api) -> None:
    """DC of a vehicle that has no session in the window is energy of the fleet, as in its own summary."""
    await charge(api, "v-1", "m-1", at(0), at(60))
    await store(api, meter(kwh=1), vehicle(kwh=0.75), vehicle("v-2", kwh=0.125))
    told = await get(api, f"/v1/analytics/fleet?{DAY}")
    single = [await get(api, f"/v1/analytics/performance/v-{n}?{DAY}") for n in (1, 2)]
    for name in ("totalAcConsumedKwh", "totalDcDeliveredKwh", "energyLossKwh"):
        assert told[name] == sum(each[name] for each in single), name

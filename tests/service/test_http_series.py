"""The fleet by vehicle, meter, hour and day, and the hours of one vehicle, over HTTP."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from tests.support.charging import ask, charge, count, plug
from tests.support.strategies import Api, Owner

pytestmark = pytest.mark.anyio

# All three tell the same of a fleet of one vehicle and one meter.
PATHS: Final = (
    "/v1/analytics/fleet",
    "/v1/analytics/vehicles/v-1/hourly",
    "/v1/analytics/meters/m-1/hourly",
)


@pytest.mark.parametrize("rolled", [False, True])
async def test_the_worst_come_first(api: Api, owner: Owner, rolled: bool) -> None:
    """Vehicles and meters by rising efficiency, of those that drew enough; the totals hold them all."""
    start = datetime(2026, 3, 3, 7, 30, tzinfo=UTC)
    end = start + timedelta(hours=5)
    for number, ratio in enumerate((0.9, 0.7, 0.8, 0.6)):
        # The last one draws too little to tell.
        await charge(owner, number, start, end, ratio=ratio, kwh=0.1 if number < 3 else 0.001)
    if rolled:
        await owner.execute("call refresh_rollups()")
    window = {"from_": start.isoformat(), "to": end.isoformat()}
    for by in ("vehicle", "meter"):
        answer = await ask(api, "/v1/analytics/fleet", by=by, **window)
        assert answer["totalAcConsumedKwh"] == pytest.approx(90.3)
        assert answer["totalDcDeliveredKwh"] == pytest.approx(30 * 2.4 + 0.3 * 0.6)
        listed = answer[f"{by}s"]
        assert [row[f"{by}Id"] for row in listed] == [f"{by[0]}-{number}" for number in (1, 2, 0)]
        assert [row["efficiencyRatio"] for row in listed] == [0.7, 0.8, 0.9]
        assert [row["belowThreshold"] for row in listed] == [True, True, False]
        assert listed[0]["readingsCount"] == {"vehicle": 300, "meter": 300}
    answer = await ask(api, "/v1/analytics/fleet", by="meter", limit=1, leastKwh=0, **window)
    assert [row["meterId"] for row in answer["meters"]] == ["m-3"]


async def test_a_meter_is_not_blamed_for_another(api: Api, owner: Owner) -> None:
    """While a vehicle draws from two meters at once, what arrived counts for neither of them."""
    start = datetime(2026, 3, 3, 7, tzinfo=UTC)
    await charge(owner, 1, start, start + timedelta(hours=4), ratio=0.9)
    last_hour = (start + timedelta(hours=3), start + timedelta(hours=4))
    await count(owner, "m-x", *last_hour, kwh=0.2)
    await plug(owner, "v-1", "m-x", *last_hour)
    window = {"from_": start.isoformat(), "to": (start + timedelta(hours=4)).isoformat()}
    answer = await ask(api, "/v1/analytics/fleet", by="meter", leastKwh=0, **window)
    assert [
        (row["meterId"], row["totalAcConsumedKwh"], row["efficiencyRatio"]) for row in answer["meters"]
    ] == [("m-1", 18, 0.9)]
    assert answer["totalAcConsumedKwh"] == pytest.approx(24 + 12)


async def test_the_last_finished_day_unless_asked(api: Api, owner: Owner) -> None:
    """The fleet's window is the newest 24 hours that are rolled up; before the first refresh, until now."""
    now = datetime.now(UTC)
    # Nobody refreshes while somebody holds this.
    await owner.execute("select pg_advisory_lock(1718383735, 2)")
    await owner.execute("update rollup_progress set refreshed_until = '-infinity'")
    answer = await ask(api, "/v1/analytics/fleet")
    start, end = (datetime.fromisoformat(answer[name]) for name in ("periodStart", "periodEnd"))
    assert end - start == timedelta(hours=24)
    assert end >= now
    await owner.execute("call refresh_rollups()")
    [row] = await (await owner.execute("select min(refreshed_until) as line from rollup_progress")).fetchall()
    line = row["line"]
    await charge(owner, 1, line - timedelta(hours=25), line + timedelta(minutes=1), ratio=0.5)
    await owner.execute("call refresh_rollups()")
    for by in ("vehicle", "meter", "hour", "day"):
        answer = await ask(api, "/v1/analytics/fleet", by=by)
        start, end = (datetime.fromisoformat(answer[name]) for name in ("periodStart", "periodEnd"))
        assert end - start == timedelta(hours=24)
        # An hour may just have ended.
        assert end in (line, line + timedelta(hours=1))
        assert answer["totalDcDeliveredKwh"] == pytest.approx(answer["totalAcConsumedKwh"] / 2)
        if end == line:
            assert answer["totalAcConsumedKwh"] == pytest.approx(24 * 6)
    # One end alone is as everywhere: a day before it, or until now.
    answer = await ask(api, "/v1/analytics/fleet", to=line.isoformat())
    assert answer["totalAcConsumedKwh"] == pytest.approx(24 * 6)
    answer = await ask(api, "/v1/analytics/fleet", from_=line.isoformat())
    assert datetime.fromisoformat(answer["periodEnd"]) >= now


@pytest.mark.parametrize("rolled", [False, True])
@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("UTC", "2026-03-28"),
        ("Europe/Zurich", "2026-03-28"),  # summer time begins on the 29th
        ("Europe/Zurich", "2026-10-24"),  # and ends on the 25th of October
        ("Asia/Kolkata", "2026-03-28"),  # days start at half past 18 UTC
        ("Australia/Lord_Howe", "2026-04-04"),  # half an hour of summer time ends on the 5th
        ("Atlantic/Azores", "2026-10-25"),  # the clock goes back onto midnight, which comes twice
        ("America/Havana", "2026-10-31"),  # and so on the 1st of November
        ("America/Santiago", "2026-09-05"),  # there is no midnight on the 6th
    ],
)
async def test_local_days(api: Api, owner: Owner, rolled: bool, zone: str, day: str) -> None:
    """Days of a time zone are exact to the minute, whether from raw rows or from UTC hours."""
    local = ZoneInfo(zone)
    first = datetime.fromisoformat(day).replace(tzinfo=local)
    midnights = [(first + timedelta(days=number)).astimezone(UTC) for number in range(4)]
    start, end = midnights[0], midnights[3]
    await charge(owner, 1, start - timedelta(hours=7, minutes=11), end + timedelta(hours=3), ratio=0.9)
    if rolled:
        await owner.execute("call refresh_rollups()")
    window = {"from_": start.isoformat(), "to": end.isoformat(), "by": "day", "tz": zone}
    minutes = [(after - before) / timedelta(minutes=1) for before, after in pairwise(midnights)]
    for path in PATHS:
        days = (await ask(api, path, **window))["days"]
        assert [datetime.fromisoformat(row["start"]) for row in days] == midnights[:3]
        assert [datetime.fromisoformat(row["end"]) for row in days] == midnights[1:]
        assert [row["readingsCount"]["meter"] for row in days] == minutes
        assert [row["totalAcConsumedKwh"] for row in days] == pytest.approx(
            [0.1 * count for count in minutes]
        )
        assert [row["totalDcDeliveredKwh"] for row in days] == pytest.approx(
            [0.09 * count for count in minutes]
        )


@pytest.mark.parametrize("rolled", [False, True])
@pytest.mark.parametrize(
    ("zone", "first", "minutes"),
    [
        ("Australia/Lord_Howe", "2026-04-04T13:00Z", [60, 90, 60]),
        ("Australia/Lord_Howe", "2026-10-03T13:30Z", [60, 90, 60]),
        ("Atlantic/Azores", "2026-10-24T23:00Z", [60, 60, 60, 60]),
        ("Asia/Kolkata", "2026-10-24T18:30Z", [60, 60]),
    ],
)
async def test_local_hours(
    api: Api, owner: Owner, rolled: bool, zone: str, first: str, minutes: list[int]
) -> None:
    """Hours start where the zone's clock reads a full one, also after a change by half an hour."""
    start = datetime.fromisoformat(first)
    edges = [start + timedelta(minutes=sum(minutes[:number])) for number in range(len(minutes) + 1)]
    await charge(owner, 1, start - timedelta(hours=3), edges[-1] + timedelta(hours=3), ratio=0.9)
    if rolled:
        await owner.execute("call refresh_rollups()")
    for early in (0, 25):
        asked = (start - timedelta(minutes=early), edges[-1])
        window = {"from_": asked[0].isoformat(), "to": asked[1].isoformat(), "by": "hour", "tz": zone}
        for path in PATHS:
            hours = (await ask(api, path, **window))["hours"][bool(early) :]
            assert [datetime.fromisoformat(row["start"]) for row in hours] == edges[:-1]
            assert [datetime.fromisoformat(row["end"]) for row in hours] == edges[1:]
            assert [row["readingsCount"]["meter"] for row in hours] == minutes
            assert [row["totalDcDeliveredKwh"] for row in hours] == pytest.approx(
                [0.09 * count for count in minutes]
            )


@pytest.mark.parametrize("rolled", [False, True])
async def test_the_hours_behind_a_summary(api: Api, owner: Owner, rolled: bool) -> None:
    """Hours add up to the summary of the same window, and tell temperature and state of charge."""
    start = datetime(2026, 3, 3, 7, 20, tzinfo=UTC)
    end = start + timedelta(hours=6)
    await charge(owner, 1, start, end, ratio=0.9)
    await owner.execute(
        "insert into vehicle_reading (vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp) "
        "values ('v-1', %s, 55, 0, 41), ('v-1', %s, 45, 0, -1)",
        (start + timedelta(minutes=50, seconds=1), start + timedelta(minutes=99, seconds=59)),
    )
    if rolled:
        await owner.execute("call refresh_rollups()")
    window = {
        "from_": (start - timedelta(hours=1)).isoformat(),
        "to": (end - timedelta(minutes=3, seconds=7)).isoformat(),
    }
    series = await ask(api, "/v1/analytics/vehicles/v-1/hourly", **window)
    summary = await ask(api, "/v1/analytics/performance/v-1", **window)
    hours = series["hours"]
    assert len(hours) == 8
    for name in ("totalAcConsumedKwh", "totalDcDeliveredKwh", "energyLossKwh"):
        assert math.fsum(row[name] for row in hours) == pytest.approx(summary[name], abs=1e-5)
    for kind in ("vehicle", "meter"):
        assert sum(row["readingsCount"][kind] for row in hours) == summary["readingsCount"][kind]
    assert (hours[0]["efficiencyRatio"], hours[0]["avgBatteryTemp"], hours[0]["lastSoc"]) == (
        None,
        None,
        None,
    )
    second = hours[2]
    assert second["start"] == "2026-03-03T08:00:00Z"
    assert (second["minBatteryTemp"], second["maxBatteryTemp"]) == (-1, 41)
    assert second["avgBatteryTemp"] == pytest.approx(20, abs=0.01)
    assert (second["firstSoc"], second["minSoc"], second["maxSoc"], second["lastSoc"]) == (50, 45, 55, 45)


async def test_unknown_and_too_much(api: Api) -> None:
    """A vehicle nobody heard of is a 404; a zone, a word or a span that cannot be is a 400 that names it."""
    response = await api.get("/v1/analytics/vehicles/nobody/hourly")
    assert (response.status_code, response.json()["code"]) == (404, "unknown_device")
    response = await api.get("/v1/analytics/meters/nobody/hourly")
    assert (response.status_code, response.json()["code"]) == (404, "unknown_device")
    for path in PATHS:
        for parameters, field in (
            ({"tz": "Mars/Olympus"}, "tz"),
            ({"tz": ""}, "tz"),
            ({"by": "week"}, "by"),
            ({"by": "hour", "from": "2020-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "from"),
        ):
            response = await api.get(path, params=parameters)
            assert (response.status_code, response.json()["field"]) == (400, field), (path, parameters)
    # Six years of days are fine.
    window = {"from_": "2020-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z", "by": "day"}
    assert len((await ask(api, "/v1/analytics/fleet", **window))["days"]) == 2192

"""The overview over HTTP: each figure equals what the raw rows say, and it is worked out once for all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import httpx
import pytest

from service.analytics import overview
from service.settings import Settings
from tests.support.charging import charge, count, plug
from tests.support.http import get
from tests.support.strategies import Api, Owner, problem, rows, serving

pytestmark = pytest.mark.anyio

PATH: Final = "/v1/analytics/overview"
MINUTE: Final = timedelta(minutes=1)
# What the day's energy must be, from the raw rows alone.
RAW: Final = """
    select
        (
            select coalesce(sum(r.kwh_consumed_ac), 0)
            from meter_reading as r
            where
                r.recorded_at >= %(since)s and r.recorded_at < %(until)s
                and exists (
                    select from charging_session as s
                    where s.meter_id = r.meter_id and s.during @> r.recorded_at
                )
        ) as ac,
        (
            select coalesce(sum(r.kwh_delivered_dc), 0)
            from vehicle_reading as r
            where r.recorded_at >= %(since)s and r.recorded_at < %(until)s
        ) as dc
"""


async def anew(api: Api | httpx.AsyncClient, tz: str | None = None) -> dict[str, Any]:
    """Ask for one that is worked out now."""
    response = await api.get(PATH, params={"tz": tz} if tz else {}, headers={"Cache-Control": "no-cache"})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def check(owner: Owner, today: dict[str, Any]) -> None:
    """Hold the energy of a day against the raw rows."""
    span = {
        "since": datetime.fromisoformat(today["periodStart"]),
        "until": datetime.fromisoformat(today["periodEnd"]),
    }
    [raw] = await (await owner.execute(RAW.encode(), span)).fetchall()
    assert today["totalAcConsumedKwh"] == pytest.approx(raw["ac"], abs=1e-5)
    assert today["totalDcDeliveredKwh"] == pytest.approx(raw["dc"], abs=1e-5)
    assert today["energyLossKwh"] == pytest.approx(raw["ac"] - raw["dc"], abs=1e-5)
    if span["until"] - span["since"] > 5 * MINUTE:
        assert raw["ac"] > 0
        assert raw["dc"] > 0


async def test_nothing_yet(api: Api) -> None:
    """An engine that never heard of anything says so in zeros and nulls."""
    body = await get(api, PATH)
    now = datetime.now(UTC)
    as_of = datetime.fromisoformat(body.pop("asOf"))
    assert abs(now - as_of) < timedelta(minutes=1)
    today = body.pop("today")
    assert datetime.fromisoformat(today.pop("periodEnd")) <= now
    assert today.pop("periodStart")[10:] == "T00:00:00Z"
    assert today == {
        "totalAcConsumedKwh": 0,
        "totalDcDeliveredKwh": 0,
        "energyLossKwh": 0,
        "efficiencyRatio": None,
        "belowThreshold": False,
    }
    assert body == {
        "vehicles": {"known": 0, "reporting": 0, "charging": 0},
        "meters": {"known": 0, "reporting": 0},
        "power": {"acKw": 0, "dcKw": 0, "seconds": 300},
        "threshold": 0.85,
        "alerts": {"open": 0},
        "ingest": {"readingsPerSecond": 0, "lagMeanSeconds": None},
        "newestReadingAt": None,
    }


async def test_who_reports_and_who_charges(api: Api, owner: Owner) -> None:
    """Reporting: the newest reading is at most 5 minutes old; charging: and it brought energy."""
    now = datetime.now(UTC)
    for number, (age, ratio) in enumerate(((1, 0.9), (3, 0.9), (4, 0), (7, 0.9), (200, 0.9))):
        newest = now - age * MINUTE
        await charge(owner, number, newest - 5 * MINUTE, newest + MINUTE, ratio=ratio)
    await count(owner, "m-x", now - MINUTE, now, kwh=0.1)
    body = await anew(api)
    assert body["vehicles"] == {"known": 5, "reporting": 3, "charging": 2}
    assert body["meters"] == {"known": 6, "reporting": 4}
    [row] = await rows(owner, "select max(recorded_at) as newest from meter_reading")
    assert datetime.fromisoformat(body["newestReadingAt"]) == row["newest"]


async def test_power(api: Api, owner: Owner) -> None:
    """The energy of five whole minutes by their length, of all meters and vehicles, in sessions or not."""
    now = datetime.now(UTC)
    # Certainly within those five minutes, whatever second this runs at; then certainly before, and after.
    for since, until, kwh in (
        (now - 4.5 * MINUTE, now - 1.5 * MINUTE, 0.1),
        (now - 8 * MINUTE, now - 7 * MINUTE, 50),
        (now + 2 * MINUTE, now + 3 * MINUTE, 70),
    ):
        await charge(owner, 1, since, until, ratio=0.5, kwh=kwh)
    await count(owner, "m-alone", now - 2 * MINUTE, now - MINUTE, kwh=1)
    power = (await anew(api))["power"]
    assert power == {"acKw": pytest.approx(1.3 * 12), "dcKw": pytest.approx(0.15 * 12), "seconds": 300}


@pytest.mark.parametrize("rolled", [False, True])
@pytest.mark.parametrize(
    "zone", [None, "Asia/Kolkata", "America/St_Johns", "Pacific/Kiritimati", "Pacific/Pago_Pago"]
)
async def test_today(api: Api, owner: Owner, rolled: bool, zone: str | None) -> None:
    """The day of a time zone until now; late readings and corrected sessions count at once."""
    now = datetime.now(UTC)
    await charge(owner, 1, now - 50 * timedelta(hours=1), now + 3 * MINUTE, ratio=0.9)
    await charge(owner, 2, now - 27 * timedelta(hours=1), now - 2 * MINUTE, ratio=0.8)
    await count(owner, "m-alone", now - 50 * timedelta(hours=1), now, kwh=5)
    if rolled:
        await owner.execute("call refresh_rollups()")
    today = (await anew(api, zone))["today"]
    local = datetime.fromisoformat(today["periodEnd"]).astimezone(ZoneInfo(zone or "UTC"))
    start = local.replace(hour=0, minute=0, second=0, microsecond=0)
    assert datetime.fromisoformat(today["periodStart"]) == start
    await check(owner, today)
    # Late, and by other clocks; some are of a day before.
    await count(owner, "m-1", now - 5000 * MINUTE - timedelta(seconds=7), now - MINUTE, kwh=0.01)
    await check(owner, (await anew(api, zone))["today"])
    await owner.execute(
        "update charging_session set during = tstzrange(%s, null) where vehicle_id = 'v-2'",
        (now - 90 * MINUTE,),
    )
    await plug(owner, "v-3", "m-alone", now - 7 * timedelta(hours=1), now - 21 * MINUTE)
    await check(owner, (await anew(api, zone))["today"])


async def test_alerts_and_ingest(api: Api, owner: Owner) -> None:
    """Open alerts are counted, whatever their kind; the lag is the mean over all sources."""
    await owner.execute(
        "insert into ingest_minute (minute, writer, kind, accepted, lag_s_count, lag_s_sum, lag_s_max) "
        "values (date_trunc('minute', now()), 'mqtt/a', 'meter', 100, 90, 90, 5), "
        "(date_trunc('minute', now()), 'http/b', 'meter', 20, 10, 110, 50)"
    )
    ingest = (await anew(api))["ingest"]
    assert ingest["lagMeanSeconds"] == 2
    # Of the minute before and what has passed of this one.
    assert 120 / 120 <= ingest["readingsPerSecond"] <= 120 / 60


async def test_it_is_worked_out_once_for_all(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks at once or soon gets the same; no-cache has it worked out anew, and that is kept then."""
    for name in ("_NOW_KEPT_S", "_TODAY_KEPT_S"):
        monkeypatch.setattr(overview, name, 60)
    async with serving(settings) as api:
        first, *bodies = await asyncio.gather(*(get(api, PATH) for _ in range(30)))
        bodies += [await get(api, PATH + "?tz=UTC")]
        assert all(body == first for body in bodies)
        newer = await anew(api)
        assert newer["asOf"] > first["asOf"]
        assert newer["today"]["periodEnd"] > first["today"]["periodEnd"]
        assert await get(api, PATH) == newer
        # Another zone has another day, and the rest is the same.
        other = await get(api, PATH + "?tz=Asia/Kolkata")
        assert other["today"]["periodStart"] != newer["today"]["periodStart"]
        assert {**other, "today": None} == {**newer, "today": None}


async def test_bad_zones(api: Api) -> None:
    """A zone that is none is a 400 that names the parameter."""
    assert problem(await api.get(PATH + "?tz=Mars"), 400, "bad_parameter")["field"] == "tz"

"""The hours of a meter, and charging sessions with the energy of each, over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tests.support.charging import ask, charge, count, plug
from tests.support.strategies import Api, Owner, problem

pytestmark = pytest.mark.anyio

START: Final = datetime(2026, 3, 3, 7, 20, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)


def figures(session: dict[str, Any]) -> tuple[Any, ...]:
    """Give what is told of a session's energy."""
    names = ("meteredAcKwh", "totalAcConsumedKwh", "totalDcDeliveredKwh", "energyLossKwh", "efficiencyRatio")
    return tuple(session[name] for name in names)


@pytest.mark.parametrize("rolled", [False, True])
async def test_the_hours_of_a_meter(api: Api, owner: Owner, rolled: bool) -> None:
    """All that it counted, and apart from that AC and DC while a vehicle drew from it alone; voltage."""
    await charge(owner, 1, START, START + 4 * HOUR, ratio=0.8)
    # Before the session it counts as well; in its last half hour the vehicle draws from another meter, too.
    await count(owner, "m-1", START - 10 * MINUTE, START, kwh=0.05)
    shared = (START + 3.5 * HOUR, START + 4 * HOUR)
    await count(owner, "m-2", *shared, kwh=0.2)
    await plug(owner, "v-1", "m-2", *shared)
    await owner.execute(
        "insert into meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage) "
        "values ('m-1', %s, 0.3, 251), ('m-1', %s, 0, 209)",
        (START + 1.5 * HOUR + timedelta(seconds=1), START + 1.5 * HOUR + timedelta(seconds=2)),
    )
    if rolled:
        await owner.execute("call refresh_rollups()")
    window = {"from_": (START - HOUR).isoformat(), "to": (START + 5 * HOUR).isoformat()}
    answer = await ask(api, "/v1/analytics/meters/m-1/hourly", **window)
    assert (answer["meterId"], answer["threshold"]) == ("m-1", 0.85)
    hours = answer["hours"]
    assert [row["start"][11:16] for row in hours] == ["06:20", *(f"{hour:02}:00" for hour in range(7, 13))]
    assert [row["meteredAcKwh"] for row in hours] == pytest.approx([0, 4.5, 6.3, 6, 6, 2, 0])
    assert [row["totalAcConsumedKwh"] for row in hours] == pytest.approx([0, 4, 6.3, 6, 5, 0, 0])
    assert [row["totalDcDeliveredKwh"] for row in hours] == pytest.approx([0, 3.2, 4.8, 4.8, 4, 0, 0])
    assert [row["energyLossKwh"] for row in hours] == pytest.approx([0, 0.8, 1.5, 1.2, 1, 0, 0])
    assert [row["efficiencyRatio"] for row in hours[3:]] == [0.8, 0.8, None, None]
    assert [row["belowThreshold"] for row in hours] == [False, True, True, True, True, False, False]
    assert [row["readingsCount"] for row in hours[2:5]] == [
        {"vehicle": 60, "meter": 62},
        {"vehicle": 60, "meter": 60},
        {"vehicle": 50, "meter": 50},
    ]
    assert (hours[2]["minVoltage"], hours[2]["maxVoltage"]) == (209, 251)
    assert hours[2]["avgVoltage"] == pytest.approx(230)
    assert (hours[6]["minVoltage"], hours[6]["maxVoltage"], hours[6]["avgVoltage"]) == (None, None, None)
    # The fleet by meter says the same of it.
    fleet = await ask(api, "/v1/analytics/fleet", by="meter", leastKwh=0, **window)
    [charger] = [row for row in fleet["meters"] if row["meterId"] == "m-1"]
    for name in ("totalAcConsumedKwh", "totalDcDeliveredKwh", "energyLossKwh"):
        assert sum(row[name] for row in hours) == pytest.approx(charger[name], abs=1e-5)


@pytest.mark.parametrize("rolled", [False, True])
async def test_the_energy_of_sessions(api: Api, owner: Owner, rolled: bool) -> None:
    """Each session of a device has all of its energy, also where it only reaches into the window."""
    await charge(owner, 1, START, START + 2 * HOUR, ratio=0.9)
    await charge(owner, 1, START + 3 * HOUR, START + 3 * HOUR + 17 * MINUTE, ratio=0.5)
    await charge(owner, 2, START, START + HOUR, ratio=0.9)
    if rolled:
        await owner.execute("call refresh_rollups()")
    for path in ("/v1/analytics/vehicles/v-1/sessions", "/v1/analytics/meters/m-1/sessions"):
        late, early = (await ask(api, path))["sessions"]
        assert figures(late) == pytest.approx((1.7, 1.7, 0.85, 0.85, 0.5))
        assert figures(early) == pytest.approx((12, 12, 10.8, 1.2, 0.9))
        assert (late["belowThreshold"], early["belowThreshold"]) == (True, False)
        assert late["readingsCount"] == {"vehicle": 17, "meter": 17}
        assert (early["vehicleId"], early["meterId"]) == ("v-1", "m-1")
        assert (early["startedAt"], early["endedAt"]) == ("2026-03-03T07:20:00Z", "2026-03-03T09:20:00Z")
        window = {"from_": (START + 90 * MINUTE).isoformat(), "to": (START + 2.5 * HOUR).isoformat()}
        assert (await ask(api, path, **window))["sessions"] == [early]
        window = {"from_": (START + 2 * HOUR).isoformat(), "to": (START + 3 * HOUR).isoformat()}
        assert (await ask(api, path, **window))["sessions"] == []
    # The vehicle's sessions add up to its summary.
    summary = await ask(
        api,
        "/v1/analytics/performance/v-1",
        from_=START.isoformat(),
        to=(START + 4 * HOUR).isoformat(),
    )
    assert summary["totalAcConsumedKwh"] == pytest.approx(13.7)
    assert summary["totalDcDeliveredKwh"] == pytest.approx(11.65)


async def test_sessions_follow_what_comes_late(api: Api, owner: Owner) -> None:
    """A late reading, and a corrected session, count at once and after the next refresh alike."""
    await charge(owner, 1, START, START + 2 * HOUR, ratio=0.9)
    await owner.execute("call refresh_rollups()")
    await owner.execute(
        "insert into meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage) "
        "values ('m-1', %s, 1, 230), ('m-1', %s, 1, 230)",
        (START + 45 * MINUTE + timedelta(seconds=1), START + timedelta(seconds=1)),
    )
    path = "/v1/analytics/meters/m-1/sessions"
    [session] = (await ask(api, path))["sessions"]
    assert figures(session) == pytest.approx((14, 14, 10.8, 3.2, round(10.8 / 14, 6)))
    await owner.execute(
        "update charging_session set during = tstzrange(%s, %s) where meter_id = 'm-1'",
        (START + 10 * MINUTE, START + 70 * MINUTE),
    )
    for _ in range(2):
        [session] = (await ask(api, path))["sessions"]
        assert figures(session) == pytest.approx((7, 7, 5.4, 1.6, round(5.4 / 7, 6)))
        await owner.execute("call refresh_rollups()")


async def test_two_meters_at_once(api: Api, owner: Owner) -> None:
    """What a vehicle draws from two meters at once counts as metered alone: nobody knows what each gave."""
    await charge(owner, 1, START, START + 4 * HOUR, ratio=0.9)
    second = (START + 3 * HOUR, START + 5 * HOUR)
    await count(owner, "m-2", *second, kwh=0.2)
    await plug(owner, "v-1", "m-2", *second)
    sessions = (await ask(api, "/v1/analytics/vehicles/v-1/sessions"))["sessions"]
    assert [session["meterId"] for session in sessions] == ["m-2", "m-1"]
    # From the fourth to the fifth hour the vehicle says nothing any more: no proof against the charger.
    assert figures(sessions[0]) == pytest.approx((24, 12, 0, 12, 0))
    assert not sessions[0]["belowThreshold"]
    assert figures(sessions[1]) == pytest.approx((24, 18, 16.2, 1.8, 0.9))
    summary = await ask(
        api,
        "/v1/analytics/performance/v-1",
        from_=START.isoformat(),
        to=(START + 5 * HOUR).isoformat(),
    )
    assert sum(session["meteredAcKwh"] for session in sessions) == pytest.approx(
        summary["totalAcConsumedKwh"]
    )


async def test_open_sessions_end_now(api: Api, owner: Owner) -> None:
    """A session that goes on has the energy until now; one that lies ahead has none yet."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    await charge(owner, 1, now - HOUR, now - HOUR + MINUTE, ratio=0.9)
    await owner.execute("delete from charging_session")
    await count(owner, "m-1", now - 59 * MINUTE, now, kwh=0.1)
    # By clocks that are fast: they count once it is their time.
    await count(owner, "m-1", now + 4 * MINUTE, now + 5 * MINUTE, kwh=7)
    await plug(owner, "v-1", "m-1", now - HOUR, None, "open")
    await plug(owner, "v-1", "m-2", now + HOUR, now + 2 * HOUR, "ahead")
    ahead, going_on = (await ask(api, "/v1/analytics/vehicles/v-1/sessions"))["sessions"]
    assert (ahead["sessionId"], *figures(ahead)) == ("ahead", 0, 0, 0, 0, None)
    assert (going_on["sessionId"], going_on["endedAt"]) == ("open", None)
    assert figures(going_on)[:3] == pytest.approx((6, 6, 0.09))
    # All alone, it is no other.
    [only] = (await ask(api, "/v1/analytics/meters/m-2/sessions"))["sessions"]
    assert only == ahead


async def test_pages_of_sessions(api: Api, owner: Owner) -> None:
    """Newest start first, by id where they start together; page by page each session comes once."""
    for number in range(7):
        start = START + number // 2 * HOUR
        await plug(owner, "v-1", f"m-{number}", start, start + 30 * MINUTE, f"s-{number}")
    await plug(owner, "v-2", "m-9", START, START + HOUR, "s-9")
    path = "/v1/analytics/vehicles/v-1/sessions"
    whole = await ask(api, path)
    assert [row["sessionId"] for row in whole["sessions"]] == [f"s-{number}" for number in range(6, -1, -1)]
    assert whole["next"] is None
    walked: list[Any] = []
    after: dict[str, Any] = {}
    for left in (4, 1, None):
        page = await ask(api, path, limit=3, **after)
        walked += page["sessions"]
        assert page["next"] == (None if left is None else f"s-{left}")
        after = {"after": page["next"]}
    assert walked == whole["sessions"]
    window = {"from_": (START + HOUR).isoformat(), "to": (START + 2 * HOUR).isoformat()}
    page = await ask(api, path, limit=1, **window)
    assert ([row["sessionId"] for row in page["sessions"]], page["next"]) == (["s-3"], "s-3")


async def test_what_cannot_be_asked(api: Api, owner: Owner) -> None:
    """Devices nobody heard of are a 404, what cannot be a 400 that names it; no session is no error."""
    await charge(owner, 1, START, START + MINUTE, ratio=0.9)
    await owner.execute("delete from charging_session")
    for kind, device in (("vehicle", "v-1"), ("meter", "m-1")):
        path = f"/v1/analytics/{kind}s/{{}}/sessions"
        assert await ask(api, path.format(device)) == {"sessions": [], "next": None}
        problem(await api.get(path.format("nobody")), 404, "unknown_device")
        for query, field in (
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("after=no%20id", "after"),
            ("after=unknown", "after"),
            ("from=2026-03-03", "from"),
            ("from=2026-03-03T08:00:00Z&to=2026-03-03T07:00:00Z", "from"),
        ):
            told = problem(await api.get(f"{path.format(device)}?{query}"), 400, "bad_parameter")
            assert told["field"] == field, query
        problem(await api.get(path.format("no%20id")), 400, "bad_parameter")

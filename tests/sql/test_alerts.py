"""Evaluating alerts over real readings: what opens, follows and closes them; nothing happens twice."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import errors

from service.alerts.rules import database_settings
from service.settings import Settings
from tests.support.alert_data import alerts, charge, evaluate, refresh, settings, told
from tests.support.servers import Postgres
from tests.support.strategies import Owner, rows

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
LOW = ("v-1", "m-1", "low_efficiency", None)


@pytest.fixture
def now() -> datetime:
    """Give the end of the newest hour that is surely finished: the time of these tests."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - HOUR


async def events(owner: Owner) -> list[tuple[str, str, str]]:
    """Give (vehicle, kind, action) of all events, in their order."""
    found = await rows(owner, "select * from alert_event order by event_id")
    return [(row["vehicle_id"], row["alert"]["kind"], row["action"]) for row in found]


async def test_a_failing_charger(owner: Owner, now: datetime) -> None:
    """DC/AC under the threshold opens an alert that tells the window, the energies, the ratio and why."""
    await charge(owner, now - 3 * HOUR, hours=2, ratio=0.7)
    await charge(owner, now - 3 * HOUR, hours=2, ratio=0.92, vehicle_id="v-2", meter_id="m-2")
    until = await refresh(owner)
    [alert] = await alerts(owner)
    assert (alert["vehicle_id"], alert["meter_id"], alert["kind"]) == ("v-1", "m-1", "low_efficiency")
    assert (alert["window_from"], alert["window_to"]) == (until - 24 * HOUR, until)
    assert alert["evaluated_until"] == until
    assert (alert["kwh_ac"], alert["kwh_dc"]) == (pytest.approx(20), pytest.approx(14))
    ratios = [alert[f"ratio_{name}"] for name in ("opened", "worst", "latest")]
    assert ratios == [pytest.approx(0.7)] * 3
    assert (alert["meter_coverage"], alert["vehicle_coverage"]) == (1, 1)
    assert (alert["threshold"], alert["closed_at"], alert["close_reason"]) == (0.85, None, None)
    assert await events(owner) == [("v-1", "low_efficiency", "opened")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ratio": 0.84}, "low_efficiency"),
        ({"ratio": 0.86}, None),
        ({"ratio": 1.0}, None),
        ({"ratio": 1.01}, None),
        ({"ratio": 1.04}, "data_fault"),
        ({"ratio": 0.5, "kwh": 4.9}, None),
        ({"ratio": 0.5, "kwh": 5.1}, "low_efficiency"),
        # Nothing is told of a side that is silent for too long, and silence is no loss of energy.
        ({"ratio": 0.92, "vehicle_share": 0}, None),
        ({"ratio": 0.92, "vehicle_share": 0.5}, None),
        ({"ratio": 0.5, "vehicle_share": 0.5}, None),
        ({"ratio": 0.5, "meter_share": 0.5}, None),
        ({"ratio": 0.92, "vehicle_share": 0.85}, None),
        ({"ratio": 0.7, "vehicle_share": 0.9}, "low_efficiency"),
        ({"ratio": 0.92, "meter_share": 0.85}, None),
        ({"ratio": 1.2, "meter_share": 0.9}, "data_fault"),
        ({"ratio": 0.0}, "low_efficiency"),
    ],
)
async def test_what_opens(owner: Owner, now: datetime, changes: dict[str, Any], expected: str | None) -> None:
    """Enough energy, enough readings on both sides, and a ratio that missing readings cannot explain."""
    await charge(owner, now - 2 * HOUR, **changes)
    await refresh(owner)
    assert [row["kind"] for row in await alerts(owner)] == ([expected] if expected else [])


async def test_a_meter_at_zero(owner: Owner, now: datetime) -> None:
    """Energy that arrives while the meter counts none is a data fault without a ratio."""
    await charge(owner, now - 2 * HOUR, kwh=0, vehicle_share=0)
    await charge(owner, now - 2 * HOUR, ratio=1, meter_share=0, session=False)
    await refresh(owner)
    [alert] = await alerts(owner)
    assert (alert["kind"], alert["kwh_ac"], alert["kwh_dc"]) == ("data_fault", 0, pytest.approx(10))
    assert [alert[f"ratio_{name}"] for name in ("opened", "worst", "latest")] == [None] * 3


@pytest.mark.parametrize(("kwh", "ratio"), [(5e-320, 1.0), (10, 1e-322), (1e-320, 1e3)])
async def test_energies_next_to_nothing(owner: Owner, now: datetime, kwh: float, ratio: float) -> None:
    """Readings of less energy than can be multiplied or divided hold up no other pair."""
    await charge(owner, now - 2 * HOUR, kwh=kwh, ratio=ratio, vehicle_id="v-0", meter_id="m-0")
    await charge(owner, now - 2 * HOUR, ratio=0.7)
    await refresh(owner)
    await refresh(owner)
    assert LOW in await told(owner)


async def test_hour_by_hour(owner: Owner, now: datetime) -> None:
    """An alert follows its ratio, stays open within the margin and closes beyond it; the next opens anew."""
    ratios = [0.92, 0.80, 0.86, 0.75, 0.865, 0.90, 0.86, 0.84]
    for hour, ratio in enumerate(ratios):
        await charge(owner, now - (len(ratios) - hour) * HOUR, ratio=ratio)
    await settings(owner, alert_window_hours=1, alerts=0)
    await refresh(owner)
    await settings(owner, alerts=1)
    seen = []
    for hour in range(len(ratios)):
        until = now - (len(ratios) - hour - 1) * HOUR
        for _ in range(2):
            await evaluate(owner, until)
        seen.append([row["closed_at"] is None for row in await alerts(owner)])
    assert seen == [[], [True], [True], [True], [True], [False], [False], [False, True]]
    first, second = await alerts(owner)
    assert (first["ratio_opened"], first["ratio_worst"], first["ratio_latest"]) == (
        pytest.approx(0.80),
        pytest.approx(0.75),
        pytest.approx(0.90),
    )
    assert (first["close_reason"], first["window_to"]) == ("recovered", now - 2 * HOUR)
    assert second["ratio_opened"] == pytest.approx(0.84)
    kinds = [(kind, action) for _, kind, action in await events(owner)]
    assert kinds == [("low_efficiency", action) for action in ("opened", "closed", "opened")]


async def test_change_of_kind(owner: Owner, now: datetime) -> None:
    """A pair that goes from one kind to the other loses the one alert and gets the other."""
    for hour, ratio in enumerate([0.7, 1.3, 0.6]):
        await charge(owner, now - (3 - hour) * HOUR, ratio=ratio)
    await settings(owner, alert_window_hours=1, alerts=0)
    await refresh(owner)
    await settings(owner, alerts=1)
    for hour in (2, 1, 0):
        await evaluate(owner, now - hour * HOUR)
    assert await told(owner) == [
        ("v-1", "m-1", "low_efficiency", "changed"),
        ("v-1", "m-1", "data_fault", "changed"),
        LOW,
    ]
    assert [(kind, action) for _, kind, action in await events(owner)] == [
        ("low_efficiency", "opened"),
        ("low_efficiency", "closed"),
        ("data_fault", "opened"),
        ("data_fault", "closed"),
        ("low_efficiency", "opened"),
    ]
    assert [row["threshold"] for row in await alerts(owner)] == [0.85, pytest.approx(1.02), 0.85]


async def test_one_alert_a_pair(owner: Owner, now: datetime) -> None:
    """A vehicle at two bad chargers has two alerts, a charger with two vehicles two; others have none."""
    for place, (vehicle_id, meter_id) in enumerate([("v-1", "m-1"), ("v-1", "m-2"), ("v-2", "m-2")]):
        start = now - (place + 2) * HOUR
        await charge(owner, start, ratio=0.6, vehicle_id=vehicle_id, meter_id=meter_id)
    await charge(owner, now - 2 * HOUR, vehicle_id="v-3", meter_id="m-3")
    await refresh(owner)
    assert sorted((v, m) for v, m, *_ in await told(owner)) == [
        ("v-1", "m-1"),
        ("v-1", "m-2"),
        ("v-2", "m-2"),
    ]
    with pytest.raises(errors.UniqueViolation):
        await owner.execute(
            "insert into efficiency_alert "
            "(vehicle_id, meter_id, kind, window_from, window_to, kwh_ac, kwh_dc, "
            "meter_coverage, vehicle_coverage, threshold, evaluated_until) "
            "values ('v-1', 'm-1', 'data_fault', now(), now(), 1, 1, 1, 1, 1, now())"
        )


async def test_evaluating_again_writes_nothing(owner: Owner, now: datetime) -> None:
    """Not a row version and not an event more, however often the same window is evaluated."""
    await charge(owner, now - 2 * HOUR, ratio=0.7)
    await charge(owner, now - 2 * HOUR, ratio=0.7, vehicle_id="v-2", meter_id="m-2", kwh=50)
    await refresh(owner)
    versions = "select xmin::text, ctid::text, * from efficiency_alert order by alert_id"
    before = await rows(owner, versions)
    assert len(before) == 2
    for _ in range(3):
        await refresh(owner)
    assert await rows(owner, versions) == before
    assert len(await events(owner)) == 2


async def test_several_at_once(
    owner: Owner, now: datetime, postgres: Postgres, database: str, edition: str
) -> None:
    """Evaluated by eight connections at the same time, each pair still gets one alert and one event."""
    await settings(owner, alerts=0)
    for place in range(20):
        await charge(owner, now - 2 * HOUR, ratio=0.6, vehicle_id=f"v-{place}", meter_id=f"m-{place}")
    await refresh(owner)
    await settings(owner, alerts=1)

    # Where a job of the database evaluates, it does so as the owner.
    role = "fleetwatt_owner" if edition == "community" else "fleetwatt_service"

    async def one() -> None:
        url = postgres.url(role, database)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute("select evaluate_alerts()")

    await asyncio.gather(*(one() for _ in range(8)))
    assert len(await alerts(owner)) == 20
    assert len(await events(owner)) == 20


async def test_a_corrected_meter(owner: Owner, now: datetime) -> None:
    """A session that is moved to another meter takes its alert along: one is withdrawn, another opens."""
    await charge(owner, now - 2 * HOUR, ratio=0.7)
    await charge(owner, now - 2 * HOUR, meter_id="m-2", vehicle_share=0, session=False)
    await refresh(owner)
    assert await told(owner) == [LOW]
    await owner.execute("update charging_session set meter_id = 'm-2'")
    await refresh(owner)
    assert await told(owner) == [
        ("v-1", "m-1", "low_efficiency", "withdrawn"),
        ("v-1", "m-2", "low_efficiency", None),
    ]
    await owner.execute("update charging_session set vehicle_id = 'v-2'")
    await refresh(owner)
    assert (await told(owner))[1] == ("v-1", "m-2", "low_efficiency", "withdrawn")


async def test_a_corrected_end(owner: Owner, now: datetime) -> None:
    """A session whose end was wrong is judged by what it is now."""
    await charge(owner, now - 4 * HOUR, ratio=0.92, hours=2)
    # The cable stayed in the meter for two more hours, at another vehicle's charge.
    await charge(owner, now - 2 * HOUR, ratio=0, hours=2, session=False)
    await owner.execute("update charging_session set during = tstzrange(lower(during), %s)", (now,))
    await refresh(owner)
    assert await told(owner) == [LOW]
    await owner.execute(
        "update charging_session set during = tstzrange(lower(during), %s)", (now - 2 * HOUR,)
    )
    await refresh(owner)
    assert await told(owner) == [("v-1", "m-1", "low_efficiency", "recovered")]


async def test_late_readings(owner: Owner, now: datetime) -> None:
    """Readings that come late count at the next evaluation, against the charger and for it."""
    start = now - 3 * HOUR
    await charge(owner, start, vehicle_share=0)
    await refresh(owner)
    assert await told(owner) == []
    await charge(owner, start, ratio=0.7, meter_share=0, session=False)
    await refresh(owner)
    assert await told(owner) == [LOW]
    # A second, sound charge of the same pair was kept back by its devices.
    await charge(owner, start - 5 * HOUR, ratio=0.95, hours=5)
    await refresh(owner)
    assert await told(owner) == [("v-1", "m-1", "low_efficiency", "recovered")]


async def test_an_alert_without_news(owner: Owner, now: datetime) -> None:
    """A charger that nobody uses is no better than before: its alert stays until it is stale."""
    await charge(owner, now - 40 * HOUR, ratio=0.7)
    await settings(owner, alerts=0, alert_stale_hours=36)
    await refresh(owner)
    await settings(owner, alerts=1)
    await evaluate(owner, now - 38 * HOUR)
    await evaluate(owner, now - 10 * HOUR)
    [alert] = await alerts(owner)
    assert (alert["closed_at"], alert["ratio_latest"]) == (None, pytest.approx(0.7))
    assert (alert["window_to"], alert["evaluated_until"]) == (now - 38 * HOUR, now - 10 * HOUR)
    await evaluate(owner, now - 3 * HOUR)
    assert await told(owner) == [LOW]
    await evaluate(owner, now - 2 * HOUR)
    assert await told(owner) == [("v-1", "m-1", "low_efficiency", "stale")]


async def test_off(owner: Owner, now: datetime) -> None:
    """Switched off, nothing opens and nothing closes."""
    await charge(owner, now - 2 * HOUR, ratio=0.7)
    await settings(owner, alerts=0)
    await refresh(owner)
    assert await told(owner) == []
    await settings(owner, alerts=1)
    await refresh(owner)
    await settings(owner, alerts=0, efficiency_threshold=0.5)
    await refresh(owner)
    assert await told(owner) == [LOW]
    await settings(owner, alerts=1)
    await refresh(owner)
    assert await told(owner) == [("v-1", "m-1", "low_efficiency", "recovered")]


async def test_before_the_first_refresh(owner: Owner, now: datetime) -> None:
    """As long as nothing is rolled up there is no window, and evaluating does nothing."""
    await charge(owner, now - 2 * HOUR, ratio=0.7)
    await owner.execute("select evaluate_alerts()")
    assert await told(owner) == []


async def test_defaults(owner: Owner) -> None:
    """The database has the same defaults as the settings, and takes each of them over."""
    rule = "select *, extract(epoch from window_length) / 3600 as window_hours, "
    rule += "extract(epoch from stale_after) / 3600 as stale_hours from alert_rule()"

    async def present() -> dict[str, Any]:
        [row] = await rows(owner, rule)
        return {
            "alerts": row["is_on"],
            "efficiency_threshold": row["threshold"],
            "alert_window_hours": row["window_hours"],
            "alert_close_margin": row["close_margin"],
            "alert_fault_tolerance": row["fault_tolerance"],
            "alert_least_kwh": row["least_kwh"],
            "alert_least_coverage": row["least_coverage"],
            "alert_reading_interval_s": row["reading_interval_s"],
            "alert_stale_hours": row["stale_hours"],
        }

    assert await present() == database_settings(Settings())
    other = Settings(
        alerts=False,
        efficiency_threshold=0.8,
        alert_window_hours=12,
        alert_close_margin=0.03,
        alert_fault_tolerance=0.01,
        alert_least_kwh=7,
        alert_least_coverage=0.6,
        alert_reading_interval_s=30,
        alert_stale_hours=50,
    )
    await settings(owner, **database_settings(other))
    assert await present() == database_settings(other)
    default = database_settings(Settings())
    assert [name for name, value in database_settings(other).items() if value == default[name]] == []


async def test_the_service_only_keeps_the_books(
    owner: Owner, now: datetime, postgres: Postgres, database: str, edition: str
) -> None:
    """The service evaluates where no job does, notes deliveries, and can neither write nor close an alert."""
    await charge(owner, now - 2 * HOUR, ratio=0.7)
    await refresh(owner)
    with psycopg.connect(postgres.url("fleetwatt_service", database), autocommit=True) as connection:
        if edition == "apache":
            connection.execute("select evaluate_alerts()")
        assert connection.execute("select count(*) from efficiency_alert").fetchone() == (1,)
        connection.execute("update alert_event set mqtt_delivered_at = now(), webhook_state = 'delivered'")
        for statement in (
            "update efficiency_alert set closed_at = now(), close_reason = 'stale'",
            "delete from efficiency_alert",
            "insert into alert_event (alert_id, vehicle_id, action, alert) values (1, 'v', 'opened', '{}')",
            "update alert_event set alert = '{}'",
            "delete from alert_event",
            "select measure_alert(1, 'none', now(), now(), 1, 1, 1, 1)",
            "select age_alert(1, now(), '1 hour')",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(statement.encode())

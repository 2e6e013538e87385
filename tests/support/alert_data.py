"""Charging that alerts are judged by: readings a minute, sessions, and the clock of the evaluation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.strategies import Owner, rows

AC_KWH_AN_HOUR = 10.0
_MINUTES = b"""
    from generate_series(0, extract(epoch from %(to)s - %(from)s)::int / 60 - 1) as n
    where floor((n + 1) * %(share)s::float8) > floor(n * %(share)s::float8)
"""
_METER_READINGS = (
    b"insert into meter_reading select %(id)s, %(from)s + n * interval '1 minute', %(kwh)s, 230" + _MINUTES
)
_VEHICLE_READINGS = (
    b"insert into vehicle_reading select %(id)s, %(from)s + n * interval '1 minute', 50, %(kwh)s, 20"
    + _MINUTES
)
_PUT_ALERT = b"""
    insert into efficiency_alert (
        vehicle_id, meter_id, kind, opened_at, window_from, window_to, kwh_ac, kwh_dc, meter_coverage,
        vehicle_coverage, ratio_opened, ratio_worst, ratio_latest, threshold, evaluated_until
    )
    values (
        %(vehicle_id)s, %(meter_id)s, %(kind)s, %(opened_at)s, '2026-01-30T12:00Z', '2026-01-31T12:00Z',
        10, 10 * %(ratio)s::float8, 1, 0.98765432109, %(ratio)s, %(ratio)s, %(ratio)s,
        0.85, '2026-01-31T12:00Z'
    )
    returning alert_id
"""


async def refresh(owner: Owner) -> datetime:
    """Roll up all that is finished, and evaluate; give the end of the newest finished hour."""
    await owner.execute("call refresh_rollups()")
    [row] = await rows(owner, "select min(refreshed_until) as watermark from rollup_progress")
    watermark: datetime = row["watermark"]
    return watermark


async def evaluate(owner: Owner, until: datetime) -> None:
    """Evaluate as it was when the finished hours ended at `until`; they must have been refreshed before."""
    await owner.execute("update rollup_progress set refreshed_until = %s", (until,))
    await owner.execute("select evaluate_alerts()")


async def charge(
    owner: Owner,
    start: datetime,
    *,
    ratio: float = 0.92,
    hours: float = 1,
    vehicle_id: str = "v-1",
    meter_id: str = "m-1",
    kwh: float = AC_KWH_AN_HOUR,
    meter_share: float = 1,
    vehicle_share: float = 1,
    session: bool = True,
) -> None:
    """Store a charge: `kwh` of AC an hour, DC at a ratio, a reading a minute and the session around them.

    Of the readings only a share is there, spread evenly, each with the energy of its own minute.
    """
    end = start + timedelta(hours=hours)
    if session:
        await owner.execute(
            "insert into charging_session (vehicle_id, meter_id, during) values (%s, %s, tstzrange(%s, %s))",
            (vehicle_id, meter_id, start, end),
        )
    span = {"from": start, "to": end}
    await owner.execute(_METER_READINGS, {**span, "id": meter_id, "kwh": kwh / 60, "share": meter_share})
    await owner.execute(
        _VEHICLE_READINGS, {**span, "id": vehicle_id, "kwh": kwh / 60 * ratio, "share": vehicle_share}
    )


async def settings(owner: Owner, **values: float) -> None:
    """Set what the database evaluates by."""
    await owner.execute(
        "select apply_settings(%s, %s::float8[])", (list(values), [float(value) for value in values.values()])
    )


async def alerts(owner: Owner) -> list[dict[str, Any]]:
    """Give all alerts, the first opened first."""
    return await rows(owner, "select * from efficiency_alert order by alert_id")


async def told(owner: Owner) -> list[tuple[str, str, str, str | None]]:
    """Give (vehicle, meter, kind, reason of closing) of all alerts, the first opened first."""
    return [
        (row["vehicle_id"], row["meter_id"], row["kind"], row["close_reason"]) for row in await alerts(owner)
    ]


async def put_alert(owner: Owner, vehicle_id: str = "v-1", meter_id: str = "m-1", **values: Any) -> int:
    """Write an open alert as the database itself would; give its id.

    No readings stand behind it, so evaluating is switched off; the tests' processes must not switch it on.
    """
    await settings(owner, alerts=0)
    row = {"kind": "low_efficiency", "ratio": 0.7, "opened_at": datetime.now(UTC)} | values
    cursor = await owner.execute(_PUT_ALERT, {"vehicle_id": vehicle_id, "meter_id": meter_id, **row})
    [stored] = await cursor.fetchall()
    alert_id: int = stored["alert_id"]
    return alert_id


async def close_alert(
    owner: Owner, alert_id: int, reason: str = "recovered", at: datetime | None = None
) -> None:
    """Close an alert as the database itself would."""
    await owner.execute(
        "update efficiency_alert set closed_at = coalesce(%s, now()), close_reason = %s where alert_id = %s",
        (at, reason, alert_id),
    )

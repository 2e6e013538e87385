"""Charging as rows: a reading a minute of a vehicle and its meter, the session that ties them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from tests.support.strategies import Api, Owner

FILL: Final = """
    insert into {kind}_reading ({kind}_id, recorded_at, {columns})
    select %(id)s, t, {values}
    from generate_series(
        %(start)s::timestamptz, %(end)s::timestamptz - interval '1 minute', interval '1 minute'
    ) as t
"""


async def count(owner: Owner, meter_id: str, start: datetime, end: datetime, kwh: float) -> None:
    """Store what a meter counts, the same each minute."""
    text = FILL.format(kind="meter", columns="kwh_consumed_ac, voltage", values=f"{kwh!r}, 230")
    await owner.execute(text.encode(), {"id": meter_id, "start": start, "end": end})


async def plug(
    owner: Owner,
    vehicle_id: str,
    meter_id: str,
    start: datetime,
    end: datetime | None,
    name: str | None = None,
) -> None:
    """Store a session."""
    await owner.execute(
        "insert into charging_session (session_id, vehicle_id, meter_id, during) "
        "values (coalesce(%s, gen_random_uuid()::text), %s, %s, tstzrange(%s, %s))",
        (name, vehicle_id, meter_id, start, end),
    )


async def charge(
    owner: Owner, number: int, start: datetime, end: datetime, *, ratio: float, kwh: float = 0.1
) -> None:
    """Store a vehicle that draws the same from its meter each minute, and the session that ties them."""
    await count(owner, f"m-{number}", start, end, kwh)
    values = f"50, {kwh * ratio!r}, 20"
    text = FILL.format(kind="vehicle", columns="soc, kwh_delivered_dc, battery_temp", values=values)
    await owner.execute(text.encode(), {"id": f"v-{number}", "start": start, "end": end})
    await plug(owner, f"v-{number}", f"m-{number}", start, end)


async def ask(api: Api, path: str, **parameters: Any) -> Any:
    """Ask, and expect an answer; `from_` stands for from."""
    named = {name.rstrip("_"): value for name, value in parameters.items()}
    response = await api.get(path, params=named)
    assert response.status_code == 200, response.text
    return response.json()

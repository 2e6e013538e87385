"""Every energy answer of the database, held against what plain Python reckons from the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

import psycopg

from tests.support.reckoning import (
    DAY,
    HOUR,
    Book,
    Span,
    differences,
    meter_rollup,
    temperature_and_soc,
    vehicle_rollup,
)

Connection = psycopg.Connection[Any]
Answer = dict[Any, tuple[Any, ...]]

VEHICLE_PERFORMANCE: Final = """
select w.place::int, v.id, p.kwh_ac, p.kwh_dc, p.battery_temp_sum, p.meter_readings, p.vehicle_readings
from unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) with ordinality as w (w_from, w_to, place)
cross join unnest(%(vehicles)s::text[]) as v (id)
cross join lateral vehicle_performance(v.id, w.w_from, w.w_to) as p
"""
FLEET_PERFORMANCE: Final = """
select w.place::int, p.vehicle_id, p.kwh_ac, p.meter_readings, p.kwh_dc, p.vehicle_readings
from unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) with ordinality as w (w_from, w_to, place)
cross join lateral fleet_performance(w.w_from, w.w_to) as p
where p.vehicle_id = any(%(vehicles)s)
"""
PAIR_ENERGY: Final = """
select
    w.place::int, p.vehicle_id, p.meter_id,
    p.kwh_ac, p.meter_readings, p.kwh_dc, p.vehicle_readings, p.connected_s
from unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) with ordinality as w (w_from, w_to, place)
cross join lateral pair_energy(w.w_from, w.w_to) as p
where p.vehicle_id = any(%(vehicles)s)
"""
BILLED: Final = """
select b.place, v.id, b.meter_id, b.kwh, b.readings
from unnest(%(vehicles)s::text[]) as v (id)
cross join lateral billed(%(edges)s::timestamptz[], v.id) as b
"""
DELIVERED: Final = """
select
    d.place, v.id, d.kwh, d.readings, d.battery_temp_sum, d.battery_temp_min, d.battery_temp_max,
    d.soc_min, d.soc_max, d.soc_first, d.soc_last
from unnest(%(vehicles)s::text[]) as v (id)
cross join lateral delivered(%(edges)s::timestamptz[], v.id) as d
"""
FLEET_ENERGY: Final = """
select f.place, f.vehicle_id, f.kwh_ac, f.meter_readings, f.kwh_dc, f.vehicle_readings
from fleet_energy(%(edges)s::timestamptz[]) as f
where f.vehicle_id = any(%(vehicles)s)
"""
CHARGED: Final = """
select c.place, m.id, c.kwh_ac, c.meter_readings, c.kwh_dc, c.vehicle_readings
from unnest(%(meters)s::text[]) as m (id)
cross join lateral charged(%(edges)s::timestamptz[], m.id) as c
"""
METERED: Final = """
select c.place, m.id, c.kwh, c.readings, c.voltage_sum, c.voltage_min, c.voltage_max
from unnest(%(meters)s::text[]) as m (id)
cross join lateral metered(%(edges)s::timestamptz[], m.id) as c
"""
SESSION_ENERGY: Final = """
select e.session_id, e.kwh_metered, e.kwh_ac, e.meter_readings, e.kwh_dc, e.vehicle_readings
from session_energy(%(sessions)s::text[], %(as_of)s) as e
"""
# Which kinds of rows an answer is made of: a test in which it never were all of them would prove nothing.
MADE_OF: Final = """
with asked as (
    select
        %(edges)s::timestamptz[] as edges,
        tstzrange((%(edges)s::timestamptz[])[1], %(last)s) as span
),

meter as (
    select w.*
    from asked
    cross join lateral rolled_up('meter', asked.edges) as r
    cross join lateral split_window(asked.span, r.days, r.hours) as w
),

vehicle as (
    select w.*
    from asked
    cross join lateral rolled_up('vehicle', asked.edges) as r
    cross join lateral split_window(asked.span, r.days, r.hours) as w
)

select
    exists (select from meter_daily_stored, meter where meter_id = any(%(meters)s) and day <@ days)
    or exists (select from vehicle_daily_stored, vehicle where vehicle_id = any(%(cars)s) and day <@ days),
    exists (select from meter_hourly_stored, meter where meter_id = any(%(meters)s) and hour <@ hours)
    or exists (select from vehicle_hourly_stored, vehicle where vehicle_id = any(%(cars)s) and hour <@ hours),
    exists (select from meter_reading, meter where meter_id = any(%(meters)s) and recorded_at <@ rest)
    or exists (select from vehicle_reading, vehicle where vehicle_id = any(%(cars)s) and recorded_at <@ rest),
    exists (select from rollup_stale, asked where hour <@ span)
"""
METER_COLUMNS: Final[LiteralString] = "readings, kwh_ac, kwh_ac_max, voltage_sum, voltage_min, voltage_max"
VEHICLE_COLUMNS: Final[LiteralString] = (
    "readings, kwh_dc, kwh_dc_max, battery_temp_sum, battery_temp_min, battery_temp_max, "
    "soc_min, soc_max, soc_first, soc_last"
)


def keyed(connection: Connection, statement: LiteralString, length: int, **parameters: Any) -> Answer:
    """Run a query; give its rows by their first so many columns, each key once."""
    rows = connection.execute(statement, parameters).fetchall()
    # In UTC: of moments that a local clock shows twice, Python says that they equal none in another zone.
    answer: Answer = {tuple(map(_in_utc, row[:length])): tuple(row[length:]) for row in rows}
    assert len(answer) == len(rows), f"a key comes twice in {rows}"
    return answer


def _in_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def wrong_windows(connection: Connection, book: Book, vehicles: list[str], windows: list[Span]) -> list[str]:
    """List what is wrong in the answers that come for one window: of a vehicle, of the fleet, of pairs."""
    performance: Answer = {}
    fleet: Answer = {}
    pairs: Answer = {}
    for place, window in enumerate(windows, 1):
        billed, delivered = book.billed(window), book.delivered(window)
        for vehicle in vehicles:
            ac = [kwh for (_, name, _), drawn in billed.items() if name == vehicle for kwh in drawn]
            rows = delivered.get((1, vehicle), [])
            sums = (math.fsum(ac), math.fsum(row.kwh_delivered_dc for row in rows))
            heat = math.fsum(row.battery_temp for row in rows) if rows else None
            performance[place, vehicle] = (*sums, heat, len(ac), len(rows))
            if ac or rows:
                fleet[place, vehicle] = (sums[0], len(ac), sums[1], len(rows))
        pairs |= {(place, *pair): energy for pair, energy in book.pairs(window).items()}
    asked = {
        "vehicles": vehicles,
        "starts": [start for start, _ in windows],
        "ends": [end for _, end in windows],
    }
    return [
        f"{name} {difference}"
        for name, expected, given in (
            ("vehicle_performance", performance, keyed(connection, VEHICLE_PERFORMANCE, 2, **asked)),
            ("fleet_performance", fleet, keyed(connection, FLEET_PERFORMANCE, 2, **asked)),
            ("pair_energy", pairs, keyed(connection, PAIR_ENERGY, 3, **asked)),
        )
        for difference in differences(expected, given)
    ]


def wrong_edges(
    connection: Connection, book: Book, vehicles: list[str], edges: Sequence[datetime]
) -> list[str]:
    """List what is wrong in the answers that come for many windows at once."""
    billed: Answer = {key: (math.fsum(kwh), len(kwh)) for key, kwh in book.billed(edges).items()}
    delivered: Answer = {}
    fleet: dict[Any, list[list[float]]] = {}
    for (place, vehicle, _), kwh in book.billed(edges).items():
        fleet.setdefault((place, vehicle), [[], []])[0] += kwh
    for key, rows in book.delivered(edges).items():
        kwh_dc = [row.kwh_delivered_dc for row in rows]
        fleet.setdefault(key, [[], []])[1] += kwh_dc
        delivered[key] = (math.fsum(kwh_dc), len(rows), *temperature_and_soc(rows))
    energy = {key: (math.fsum(ac), len(ac), math.fsum(dc), len(dc)) for key, (ac, dc) in fleet.items()}
    asked = {"vehicles": vehicles, "edges": list(edges)}
    return [
        f"{name} {difference}"
        for name, expected, given in (
            ("billed", billed, keyed(connection, BILLED, 3, **asked)),
            ("delivered", delivered, keyed(connection, DELIVERED, 2, **asked)),
            ("fleet_energy", energy, keyed(connection, FLEET_ENERGY, 2, **asked)),
        )
        for difference in differences(expected, given)
    ]


def wrong_chargers(
    connection: Connection, book: Book, meters: list[str], edges: Sequence[datetime]
) -> list[str]:
    """List what is wrong in the answers about one meter, window by window."""
    metered: Answer = {
        key: (
            math.fsum(row.kwh_consumed_ac for row in rows),
            len(rows),
            math.fsum(row.voltage for row in rows),
            min(row.voltage for row in rows),
            max(row.voltage for row in rows),
        )
        for key, rows in book.metered(edges).items()
        if key[1] in meters
    }
    asked = {"meters": meters, "edges": list(edges)}
    return [
        f"{name} {difference}"
        for name, expected, given in (
            ("charged", book.charged(edges), keyed(connection, CHARGED, 2, **asked)),
            ("metered", metered, keyed(connection, METERED, 2, **asked)),
        )
        for difference in differences(expected, given)
    ]


def wrong_sessions(connection: Connection, book: Book, as_of: datetime) -> list[str]:
    """List what is wrong in the energy of the sessions up to a moment."""
    sessions = [session.session_id for session in book.sessions]
    given = keyed(connection, SESSION_ENERGY, 1, sessions=sessions, as_of=as_of)
    return [f"session_energy {text}" for text in differences(book.session_energy(as_of), given)]


def wrong_rollups(connection: Connection, book: Book) -> list[str]:
    """List what is wrong in the four rollups, column by column; they are exact right after a refresh."""
    result = []
    for bin_name, width in (("hour", HOUR), ("day", DAY)):
        name = "hourly" if bin_name == "hour" else "daily"
        for kind, columns, expected in (
            ("meter", METER_COLUMNS, meter_rollup(book.meter_rows.values(), width)),
            ("vehicle", VEHICLE_COLUMNS, vehicle_rollup(book.vehicle_rows.values(), width)),
        ):
            statement = (
                f"select {kind}_id, {bin_name}, {columns} from {kind}_{name} "  # noqa: S608 - our own names
                f"where {kind}_id = any(%(devices)s)"
            )
            devices = sorted({device for device, _ in expected})
            given = keyed(connection, statement, 2, devices=devices)
            result += [f"{kind}_{name} {text}" for text in differences(expected, given)]
    return result


def made_of(
    connection: Connection, meters: list[str], vehicles: list[str], edges: Sequence[datetime]
) -> dict[str, bool]:
    """Tell whether an answer takes rolled-up days, rolled-up hours, raw rows, and meets stale hours."""
    row = connection.execute(
        MADE_OF, {"meters": meters, "cars": vehicles, "edges": list(edges), "last": edges[-1]}
    ).fetchone()
    assert row is not None
    return dict(zip(("days", "hours", "raw rows", "stale hours"), row, strict=True))

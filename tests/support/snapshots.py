"""Whether one snapshot of the database agrees with itself: answers and rollups against raw rows, all in SQL.

Readings for this have values whose sums are exact in binary (see `meter` and `vehicle`), so that the order of
adding up makes no difference and rows are compared as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from random import Random
from typing import Any, Final, LiteralString

import psycopg

from service.ingest.streams import METER, VEHICLE, rows, values
from service.readings import MeterReading, Reading, VehicleReading, kind_of
from service.sql import query
from tests.support.reckoning import Span

Connection = psycopg.Connection[Any]

PERFORMANCE: Final = """
with window_ as (
    select w_from, w_to, place
    from unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) with ordinality as t (w_from, w_to, place)
),

told as (
    select w.place, v.id, p.kwh_ac, p.kwh_dc, p.battery_temp_sum, p.meter_readings, p.vehicle_readings
    from window_ as w
    cross join unnest(%(vehicles)s::text[]) as v (id)
    cross join lateral vehicle_performance(v.id, w.w_from, w.w_to) as p
),

raw as (
    select w.place, v.id, coalesce(ac.kwh, 0), coalesce(dc.kwh, 0), dc.heat, ac.readings, dc.readings
    from window_ as w
    cross join unnest(%(vehicles)s::text[]) as v (id)
    cross join lateral (
        select sum(m.kwh_consumed_ac) as kwh, count(*) as readings
        from charging_session as s
        inner join meter_reading as m on s.meter_id = m.meter_id and s.during @> m.recorded_at
        where s.vehicle_id = v.id and m.recorded_at >= w.w_from and m.recorded_at < w.w_to
    ) as ac
    cross join lateral (
        select sum(r.kwh_delivered_dc) as kwh, sum(r.battery_temp) as heat, count(*) as readings
        from vehicle_reading as r
        where r.vehicle_id = v.id and r.recorded_at >= w.w_from and r.recorded_at < w.w_to
    ) as dc
)

(select 'told', * from told except all select 'told', * from raw)
union all
(select 'raw', * from raw except all select 'raw', * from told)
"""
DELIVERED: Final = """
with told as (
    select
        v.id, d.kwh, d.readings, d.battery_temp_sum, d.battery_temp_min, d.battery_temp_max,
        d.soc_min, d.soc_max, d.soc_first, d.soc_last
    from unnest(%(vehicles)s::text[]) as v (id)
    cross join lateral delivered(array[%(w_from)s, %(w_to)s]::timestamptz[], v.id) as d
),

raw as (
    select
        r.vehicle_id, sum(r.kwh_delivered_dc), count(*), sum(r.battery_temp), min(r.battery_temp),
        max(r.battery_temp), min(r.soc), max(r.soc), first(r.soc, r.recorded_at), last(r.soc, r.recorded_at)
    from vehicle_reading as r
    where r.recorded_at >= %(w_from)s and r.recorded_at < %(w_to)s and r.vehicle_id = any(%(vehicles)s)
    group by r.vehicle_id
)

(select 'told', * from told except all select 'told', * from raw)
union all
(select 'raw', * from raw except all select 'raw', * from told)
"""
FLEET: Final = """
with told as (
    select p.vehicle_id, p.kwh_ac, p.meter_readings, p.kwh_dc, p.vehicle_readings
    from fleet_performance(%(w_from)s, %(w_to)s) as p
),

raw as (
    select vehicle_id, sum(kwh_ac), sum(meters)::bigint, sum(kwh_dc), sum(vehicles)::bigint
    from (
        select s.vehicle_id, m.kwh_consumed_ac as kwh_ac, 1 as meters, 0 as kwh_dc, 0 as vehicles
        from charging_session as s
        inner join meter_reading as m on s.meter_id = m.meter_id and s.during @> m.recorded_at
        where m.recorded_at >= %(w_from)s and m.recorded_at < %(w_to)s
        union all
        select r.vehicle_id, 0, 0, r.kwh_delivered_dc, 1
        from vehicle_reading as r
        where r.recorded_at >= %(w_from)s and r.recorded_at < %(w_to)s
    ) as rows_
    group by vehicle_id
)

(select 'told', * from told except all select 'told', * from raw)
union all
(select 'raw', * from raw except all select 'raw', * from told)
"""
PAIRS: Final = """
with told as (
    select p.vehicle_id, p.meter_id, p.kwh_ac, p.meter_readings, p.kwh_dc, p.vehicle_readings
    from pair_energy(%(w_from)s, %(w_to)s) as p
),

pair as (
    select distinct s.vehicle_id, s.meter_id
    from charging_session as s
    where s.during && tstzrange(%(w_from)s, %(w_to)s)
),

raw as (
    select p.vehicle_id, p.meter_id, coalesce(ac.kwh, 0), ac.readings, coalesce(dc.kwh, 0), dc.readings
    from pair as p
    cross join lateral (
        select sum(m.kwh_consumed_ac) as kwh, count(*) as readings
        from charging_session as s
        inner join meter_reading as m on s.meter_id = m.meter_id and s.during @> m.recorded_at
        where
            s.vehicle_id = p.vehicle_id and s.meter_id = p.meter_id
            and m.recorded_at >= %(w_from)s and m.recorded_at < %(w_to)s
            and not exists (
                select from charging_session as o
                where o.vehicle_id = s.vehicle_id and o.meter_id <> s.meter_id and o.during @> m.recorded_at
            )
    ) as ac
    cross join lateral (
        select sum(r.kwh_delivered_dc) as kwh, count(*) as readings
        from charging_session as s
        inner join vehicle_reading as r on s.vehicle_id = r.vehicle_id and s.during @> r.recorded_at
        where
            s.vehicle_id = p.vehicle_id and s.meter_id = p.meter_id
            and r.recorded_at >= %(w_from)s and r.recorded_at < %(w_to)s
            and not exists (
                select from charging_session as o
                where o.vehicle_id = s.vehicle_id and o.meter_id <> s.meter_id and o.during @> r.recorded_at
            )
    ) as dc
)

(select 'told', * from told except all select 'told', * from raw)
union all
(select 'raw', * from raw except all select 'raw', * from told)
"""
METER_SUMS: Final[LiteralString] = (
    "count(*), sum(kwh_consumed_ac), max(kwh_consumed_ac), sum(voltage), min(voltage), max(voltage)"
)
VEHICLE_SUMS: Final[LiteralString] = (
    "count(*), sum(kwh_delivered_dc), max(kwh_delivered_dc), sum(battery_temp), min(battery_temp), "
    "max(battery_temp), min(soc), max(soc), first(soc, recorded_at), last(soc, recorded_at)"
)
# What the refresh promises of each snapshot: an hour before refreshed_until that is not in the log is
# rolled up exactly, and so is a day of such hours.
PROMISE: Final = """
with trusted as (
    select
        tstzmultirange(tstzrange('-infinity', p.refreshed_until))
        - coalesce(
            (
                select range_agg(tstzrange(s.hour, s.hour + interval '1 hour'))
                from rollup_stale as s
                where s.stream = p.stream
            ),
            '{{}}'
        ) as hours
    from rollup_progress as p
    where p.stream = '{kind}'
),

told as (
    select r.* from {kind}_{rollup}_stored as r
    cross join trusted as t
    where tstzrange(r.{bin}, r.{bin} + interval '{width}') <@ t.hours
),

raw as (
    select {kind}_id, time_bucket('{width}', recorded_at) as bin, {sums}
    from {kind}_reading
    cross join trusted as t
    where
        tstzrange(
            time_bucket('{width}', recorded_at), time_bucket('{width}', recorded_at) + interval '{width}'
        ) <@ t.hours
    group by 1, 2
)

(select 'told', * from told except all select 'told', * from raw)
union all
(select 'raw', * from raw except all select 'raw', * from told)
"""
# And so is each part of such an hour that has a row, whatever has become of the session it was made for.
PROMISED_PARTS: Final = """
select 'part', e.*, raw.readings, raw.kwh
from session_edge as e
cross join lateral (
    select count(*) as readings, coalesce(sum(m.kwh_consumed_ac), 0) as kwh
    from meter_reading as m
    where m.meter_id = e.meter_id and m.recorded_at >= e.part_from and m.recorded_at < e.part_to
) as raw
where
    e.hour < (select refreshed_until from rollup_progress where stream = 'meter')
    and not exists (select from rollup_stale as s where s.stream = 'meter' and s.hour = e.hour)
    and (e.readings, e.kwh_ac) is distinct from (raw.readings, raw.kwh)
"""
# Right after a refresh the views are exact as a whole, live tail included.
VIEW: Final = """
with told as (
    select * from {kind}_{rollup}
),

raw as (
    select {kind}_id, time_bucket('{width}', recorded_at) as bin, {sums}
    from {kind}_reading
    group by 1, 2
)

(select 'told', * from told except all select 'told', * from raw)
union all
(select 'raw', * from raw except all select 'raw', * from told)
"""
_ROLLUPS: Final = [
    {"kind": kind, "rollup": rollup, "bin": bin_, "width": width, "sums": sums}
    for kind, sums in (("meter", METER_SUMS), ("vehicle", VEHICLE_SUMS))
    for rollup, bin_, width in (("hourly", "hour", "1 hour"), ("daily", "day", "24 hours"))
]


def meter(device_id: str, moment: datetime, chance: Random) -> MeterReading:
    """Make a meter reading with binary fractions."""
    return MeterReading(device_id, moment, chance.randrange(1024) / 1024, float(chance.randrange(200, 260)))


def vehicle(device_id: str, moment: datetime, chance: Random) -> VehicleReading:
    """Make a vehicle reading with binary fractions."""
    soc, temp = float(chance.randrange(100)), float(chance.randrange(-20, 60))
    return VehicleReading(device_id, moment, soc, chance.randrange(1024) / 1024, temp)


def insert(connection: Connection, readings: Sequence[Reading]) -> None:
    """Insert what is new of readings as the writer does: meters first, in the order of their keys."""
    for stream in (METER, VEHICLE):
        part = [reading for reading in readings if kind_of(reading) == stream.kind]
        if part:
            part.sort(key=lambda reading: (reading.device_id, reading.recorded_at))
            connection.execute(stream.insert_new, stream.columns(values(part)))


def insert_few(connection: Connection, readings: Sequence[Reading]) -> None:
    """Insert readings, all of them new, as the writer does with a small batch: in one statement."""
    meters, vehicles = (
        values([reading for reading in readings if kind_of(reading) == stream.kind])
        for stream in (METER, VEHICLE)
    )
    counters = ("kind", "accepted", "duplicates", "conflicts", "lag_s_count", "lag_s_sum", "lag_s_max")
    connection.execute(
        query("finish_batch"),
        {
            **METER.columns(meters, "meter_"),
            **VEHICLE.columns(vehicles, "vehicle_"),
            "writer": "test",
            **{name: [] for name in counters},
        },
    )


def copy(connection: Connection, readings: Sequence[Reading]) -> None:
    """COPY readings, all of them new."""
    for stream in (METER, VEHICLE):
        part = [reading for reading in readings if kind_of(reading) == stream.kind]
        with connection.cursor() as cursor, cursor.copy(stream.copy) as target:
            target.write(rows(values(part)))


def finish_hours(owner: Connection, until: datetime) -> None:
    """Let the hours up to a whole one count as finished from the next refresh on, whatever the clock says."""
    owner.execute(
        "select apply_settings(array['rollup_settle_s'], "
        "array[extract(epoch from now() - %s::timestamptz - interval '30 minutes')::float8])",
        (until,),
    )


def wrong_answers(connection: Connection, vehicles: list[str], windows: list[Span]) -> list[Any]:
    """List what differs between answers and raw rows; delivered, fleet and pairs for the first window."""
    parameters = {
        "vehicles": vehicles,
        "starts": [start for start, _ in windows],
        "ends": [end for _, end in windows],
        "w_from": windows[0][0],
        "w_to": windows[0][1],
    }
    return [
        row
        for statement in (PERFORMANCE, DELIVERED, FLEET, PAIRS)
        for row in connection.execute(statement, parameters).fetchall()
    ]


def broken_promises(connection: Connection) -> list[Any]:
    """List the rollups that are trusted and not what their raw rows add up to."""
    return _wrong(connection, PROMISE) + connection.execute(PROMISED_PARTS).fetchall()


def wrong_views(connection: Connection) -> list[Any]:
    """List what differs between the four rollups, live tail included, and the raw rows."""
    return _wrong(connection, VIEW)


def _wrong(connection: Connection, template: str) -> list[Any]:
    return [
        (rollup["kind"], rollup["rollup"], *row)
        for rollup in _ROLLUPS
        for row in connection.execute(template.format(**rollup).encode()).fetchall()
    ]

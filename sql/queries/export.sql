-- What `fleetwatt export` writes; see service/exporter. Each of these runs inside a COPY, part by part of the window
-- (window_from, window_to: half-open), all in one snapshot. `ids` are the devices wanted; null: all.

-- name: export_spans
-- Spans of time in which some of these relations have chunks: elsewhere is nothing to export. Rollups are looked for by
-- the names that they have on every edition. A relation that is not there is an error, chunks or none.
select
    lower(span.part) as span_from,
    upper(span.part) as span_to
from (
    select
        range_agg(tstzrange(c.range_start, c.range_end)) filter (where c.chunk_name is not null)
        * tstzmultirange(tstzrange(%(window_from)s::timestamptz, %(window_to)s::timestamptz)) as parts
    from (
        select array_agg(each.name::regclass::text) as names
        from unnest(%(relations)s::text[]) as each (name)
    ) as wanted
    left join (
        timescaledb_information.chunks as c
        left join timescaledb_information.continuous_aggregates as a
            on
                c.hypertable_schema = a.materialization_hypertable_schema
                and c.hypertable_name = a.materialization_hypertable_name
    )
        on coalesce(a.view_name || '_stored', c.hypertable_name) = any(wanted.names)
) as there
cross join lateral unnest(there.parts) as span (part)
order by lower(span.part);

-- name: export_meter_readings
-- Readings of meters, device by device.
select
    r.meter_id,
    r.recorded_at,
    r.kwh_consumed_ac,
    r.voltage
from meter_reading as r
where
    r.recorded_at >= %(window_from)s::timestamptz and r.recorded_at < %(window_to)s::timestamptz
    and (%(ids)s::text[] is null or r.meter_id = any(%(ids)s::text[]))
order by r.meter_id, r.recorded_at;

-- name: export_vehicle_readings
-- Readings of vehicles, device by device.
select
    r.vehicle_id,
    r.recorded_at,
    r.soc,
    r.kwh_delivered_dc,
    r.battery_temp
from vehicle_reading as r
where
    r.recorded_at >= %(window_from)s::timestamptz and r.recorded_at < %(window_to)s::timestamptz
    and (%(ids)s::text[] is null or r.vehicle_id = any(%(ids)s::text[]))
order by r.vehicle_id, r.recorded_at;

-- name: export_meter_hours
-- Hours of meters: rolled-up ones where they are exact, the others from the raw rows.
with rollups as (
    select u.hours
    from rolled_up('meter', array[%(window_from)s, %(window_to)s]::timestamptz[]) as u
)

select h.*
from (
    select s.meter_id, s.hour, s.readings, s.kwh_ac, s.kwh_ac_max, s.voltage_sum, s.voltage_min, s.voltage_max
    from meter_hourly_stored as s
    where
        s.hour >= %(window_from)s::timestamptz and s.hour < %(window_to)s::timestamptz
        and s.hour <@ (select rollups.hours from rollups)
    union all
    select
        r.meter_id,
        time_bucket('1 hour', r.recorded_at),
        count(*),
        sum(r.kwh_consumed_ac),
        max(r.kwh_consumed_ac),
        sum(r.voltage),
        min(r.voltage),
        max(r.voltage)
    from meter_reading as r
    where
        r.recorded_at >= %(window_from)s::timestamptz and r.recorded_at < %(window_to)s::timestamptz
        and not r.recorded_at <@ (select rollups.hours from rollups)
    group by r.meter_id, time_bucket('1 hour', r.recorded_at)
) as h
where (%(ids)s::text[] is null or h.meter_id = any(%(ids)s::text[]))
order by h.hour, h.meter_id;

-- name: export_vehicle_hours
-- Hours of vehicles: rolled-up ones where they are exact, the others from the raw rows.
with rollups as (
    select u.hours
    from rolled_up('vehicle', array[%(window_from)s, %(window_to)s]::timestamptz[]) as u
)

select h.*
from (
    select
        s.vehicle_id, s.hour, s.readings, s.kwh_dc, s.kwh_dc_max, s.battery_temp_sum, s.battery_temp_min,
        s.battery_temp_max, s.soc_min, s.soc_max, s.soc_first, s.soc_last
    from vehicle_hourly_stored as s
    where
        s.hour >= %(window_from)s::timestamptz and s.hour < %(window_to)s::timestamptz
        and s.hour <@ (select rollups.hours from rollups)
    union all
    select
        r.vehicle_id,
        time_bucket('1 hour', r.recorded_at),
        count(*),
        sum(r.kwh_delivered_dc),
        max(r.kwh_delivered_dc),
        sum(r.battery_temp),
        min(r.battery_temp),
        max(r.battery_temp),
        min(r.soc),
        max(r.soc),
        first(r.soc, r.recorded_at),
        last(r.soc, r.recorded_at)
    from vehicle_reading as r
    where
        r.recorded_at >= %(window_from)s::timestamptz and r.recorded_at < %(window_to)s::timestamptz
        and not r.recorded_at <@ (select rollups.hours from rollups)
    group by r.vehicle_id, time_bucket('1 hour', r.recorded_at)
) as h
where (%(ids)s::text[] is null or h.vehicle_id = any(%(ids)s::text[]))
order by h.hour, h.vehicle_id;

-- name: export_meter_days
-- Days (UTC) of meters: rolled-up ones where they are exact; the others from their hours, which are rolled up or not.
with rollups as (
    select
        u.hours,
        (
            select coalesce(range_agg(whole_bins(part.span, interval '24 hours')), '{}')
            from unnest(u.days) as part (span)
        ) as days
    from rolled_up('meter', array[%(window_from)s, %(window_to)s]::timestamptz[]) as u
)

select d.*
from (
    select s.meter_id, s.day, s.readings, s.kwh_ac, s.kwh_ac_max, s.voltage_sum, s.voltage_min, s.voltage_max
    from meter_daily_stored as s
    where
        s.day >= %(window_from)s::timestamptz and s.day < %(window_to)s::timestamptz
        and s.day <@ (select rollups.days from rollups)
    union all
    select
        h.meter_id,
        time_bucket('1 day', h.moment),
        sum(h.readings)::bigint,
        sum(h.kwh_ac),
        max(h.kwh_ac_max),
        sum(h.voltage_sum),
        min(h.voltage_min),
        max(h.voltage_max)
    from (
        select
            s.meter_id, s.hour as moment, s.readings, s.kwh_ac, s.kwh_ac_max, s.voltage_sum, s.voltage_min,
            s.voltage_max
        from meter_hourly_stored as s
        where
            s.hour >= %(window_from)s::timestamptz and s.hour < %(window_to)s::timestamptz
            and s.hour <@ (select rollups.hours - rollups.days from rollups)
        union all
        select
            r.meter_id, r.recorded_at, 1, r.kwh_consumed_ac, r.kwh_consumed_ac as kwh_max, r.voltage,
            r.voltage as voltage_min, r.voltage as voltage_max
        from meter_reading as r
        where
            r.recorded_at >= %(window_from)s::timestamptz and r.recorded_at < %(window_to)s::timestamptz
            and not r.recorded_at <@ (select rollups.hours + rollups.days from rollups)
    ) as h
    group by h.meter_id, time_bucket('1 day', h.moment)
) as d
where (%(ids)s::text[] is null or d.meter_id = any(%(ids)s::text[]))
order by d.day, d.meter_id;

-- name: export_vehicle_days
-- Days (UTC) of vehicles: rolled-up ones where they are exact; the others from their hours, which are rolled up or not.
with rollups as (
    select
        u.hours,
        (
            select coalesce(range_agg(whole_bins(part.span, interval '24 hours')), '{}')
            from unnest(u.days) as part (span)
        ) as days
    from rolled_up('vehicle', array[%(window_from)s, %(window_to)s]::timestamptz[]) as u
)

select d.*
from (
    select
        s.vehicle_id, s.day, s.readings, s.kwh_dc, s.kwh_dc_max, s.battery_temp_sum, s.battery_temp_min,
        s.battery_temp_max, s.soc_min, s.soc_max, s.soc_first, s.soc_last
    from vehicle_daily_stored as s
    where
        s.day >= %(window_from)s::timestamptz and s.day < %(window_to)s::timestamptz
        and s.day <@ (select rollups.days from rollups)
    union all
    select
        h.vehicle_id,
        time_bucket('1 day', h.moment),
        sum(h.readings)::bigint,
        sum(h.kwh_dc),
        max(h.kwh_dc_max),
        sum(h.battery_temp_sum),
        min(h.battery_temp_min),
        max(h.battery_temp_max),
        min(h.soc_min),
        max(h.soc_max),
        first(h.soc_first, h.moment),
        last(h.soc_last, h.moment)
    from (
        select
            s.vehicle_id, s.hour as moment, s.readings, s.kwh_dc, s.kwh_dc_max, s.battery_temp_sum,
            s.battery_temp_min, s.battery_temp_max, s.soc_min, s.soc_max, s.soc_first, s.soc_last
        from vehicle_hourly_stored as s
        where
            s.hour >= %(window_from)s::timestamptz and s.hour < %(window_to)s::timestamptz
            and s.hour <@ (select rollups.hours - rollups.days from rollups)
        union all
        select
            r.vehicle_id, r.recorded_at, 1, r.kwh_delivered_dc, r.kwh_delivered_dc as kwh_max, r.battery_temp,
            r.battery_temp as temp_min, r.battery_temp as temp_max, r.soc, r.soc as soc_max, r.soc as soc_first,
            r.soc as soc_last
        from vehicle_reading as r
        where
            r.recorded_at >= %(window_from)s::timestamptz and r.recorded_at < %(window_to)s::timestamptz
            and not r.recorded_at <@ (select rollups.hours + rollups.days from rollups)
    ) as h
    group by h.vehicle_id, time_bucket('1 day', h.moment)
) as d
where (%(ids)s::text[] is null or d.vehicle_id = any(%(ids)s::text[]))
order by d.day, d.vehicle_id;

-- name: export_sessions
-- Charging sessions that touch the window, whole; `ids` are vehicles or meters.
select
    s.session_id,
    s.vehicle_id,
    s.meter_id,
    lower(s.during) as started_at,
    upper(s.during) as ended_at
from charging_session as s
where
    s.during && tstzrange(%(window_from)s::timestamptz, %(window_to)s::timestamptz)
    and (
        %(ids)s::text[] is null or s.vehicle_id = any(%(ids)s::text[]) or s.meter_id = any(%(ids)s::text[])
    )
order by lower(s.during), s.session_id;

-- Energy of one charger (meter) over time, and of single charging sessions; exact like all of 040_energy.sql.

-- Everything that a meter counted, in a session or not, and its voltage.
create or replace function metered(edges timestamptz[], wanted_meter text)
returns table (
    place integer,
    kwh double precision,
    readings bigint,
    voltage_sum double precision,
    voltage_min double precision,
    voltage_max double precision
)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    span tstzrange := tstzrange(edges[1], edges[array_upper(edges, 1)]);
    rolled record;
begin
    select r.* into rolled from rolled_up('meter', edges) as r;
    return query
    select
        e.place, sum(e.kwh_ac), sum(e.readings)::bigint, sum(e.voltage_sum), min(e.voltage_min), max(e.voltage_max)
    from split_window(span, rolled.days, rolled.hours) as w
    cross join lateral (
        select
            width_bucket(d.day, edges) as place, d.kwh_ac, d.readings, d.voltage_sum, d.voltage_min, d.voltage_max
        from unnest(w.days) as part (span)
        cross join lateral (
            select s.*
            from meter_daily_stored as s
            where s.meter_id = wanted_meter and s.day >= lower(part.span) and s.day < upper(part.span)
            offset 0
        ) as d
        union all
        select width_bucket(h.hour, edges), h.kwh_ac, h.readings, h.voltage_sum, h.voltage_min, h.voltage_max
        from unnest(w.hours) as part (span)
        cross join lateral (
            select s.*
            from meter_hourly_stored as s
            where
                s.meter_id = wanted_meter and s.hour >= lower(part.span) and s.hour < upper(part.span)
                and s.hour >= edges[1] and s.hour < edges[array_upper(edges, 1)]
            offset 0
        ) as h
        union all
        select width_bucket(r.recorded_at, edges), r.kwh_consumed_ac, 1, r.voltage, r.voltage, r.voltage
        from unnest(w.rest) as part (span)
        cross join lateral (
            select s.recorded_at, s.kwh_consumed_ac, s.voltage
            from meter_reading as s
            where
                s.meter_id = wanted_meter
                and s.recorded_at >= lower(part.span) and s.recorded_at < upper(part.span)
                and s.recorded_at >= edges[1] and s.recorded_at < edges[array_upper(edges, 1)]
            offset 0
        ) as r
    ) as e
    group by e.place;
end
$$;
comment on function metered(timestamptz[], text) is
'AC energy (kWh), readings and voltage of one meter, in sessions or not, window by window';

-- pair_energy of one charger, all its vehicles together, window by window.
create or replace function charged(edges timestamptz[], wanted_meter text)
returns table (
    place integer,
    kwh_ac double precision,
    meter_readings bigint,
    kwh_dc double precision,
    vehicle_readings bigint
)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    span tstzrange := tstzrange(edges[1], edges[array_upper(edges, 1)]);
    meters record;
    vehicles record;
begin
    select r.* into meters from rolled_up('meter', edges) as r;
    select r.* into vehicles from rolled_up('vehicle', edges) as r;
    return query
    select e.place, sum(e.kwh_ac), sum(e.meter_readings)::bigint, sum(e.kwh_dc), sum(e.vehicle_readings)::bigint
    from (
        select s.vehicle_id, range_agg(s.during * span) as connected
        from charging_session as s
        where s.meter_id = wanted_meter and s.during && span
        group by s.vehicle_id
    ) as p
    cross join lateral connected_elsewhere(p.vehicle_id, wanted_meter, span) as o
    cross join lateral connected_energy(
        p.vehicle_id, wanted_meter, p.connected - o.spans,
        meters.exact, meters.days, meters.hours, vehicles.days, vehicles.hours, edges
    ) as e
    group by e.place;
end
$$;
comment on function charged(timestamptz[], text) is
'AC and DC (kWh) of one charger (meter) while a vehicle drew from it alone, window by window';

-- Sessions, each over all of its time, or up to `as_of` if it lasts longer.
create or replace function session_energy(wanted text[], as_of timestamptz)
returns table (
    session_id text,
    kwh_metered double precision,
    kwh_ac double precision,
    meter_readings bigint,
    kwh_dc double precision,
    vehicle_readings bigint
)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    edges timestamptz[];
    meters record;
    vehicles record;
begin
    select array[min(lower(s.during)), greatest(max(least(upper(s.during), as_of)), min(lower(s.during)))]
    into edges
    from charging_session as s
    where s.session_id = any(wanted);
    select r.* into meters from rolled_up('meter', edges) as r;
    select r.* into vehicles from rolled_up('vehicle', edges) as r;
    return query
    select
        s.session_id, coalesce(e.kwh_ac, 0) + coalesce(m.kwh, 0), coalesce(e.kwh_ac, 0), coalesce(e.meter_readings, 0),
        coalesce(e.kwh_dc, 0), coalesce(e.vehicle_readings, 0)
    from (
        select c.session_id, c.vehicle_id, c.meter_id, c.during * tstzrange(null, as_of) as asked
        from charging_session as c
        where c.session_id = any(wanted)
    ) as s
    cross join lateral connected_elsewhere(s.vehicle_id, s.meter_id, s.asked) as o
    left join lateral connected_energy(
        s.vehicle_id, s.meter_id, tstzmultirange(s.asked) - o.spans,
        meters.exact, meters.days, meters.hours, vehicles.days, vehicles.hours, edges
    ) as e on true
    -- What the meter counted while the vehicle drew from another one as well.
    left join lateral (
        select sum(x.kwh) as kwh
        from unnest(tstzmultirange(s.asked) * o.spans) as part (span)
        cross join lateral meter_energy(s.meter_id, part.span, meters.exact, meters.days, meters.hours, edges) as x
    ) as m on true;
end
$$;
comment on function session_energy(text[], timestamptz) is
'Energy (kWh) of sessions up to a moment: all that the meter counted; AC and DC while the vehicle drew from it alone';

grant execute on function
metered(timestamptz[], text), charged(timestamptz[], text), session_energy(text[], timestamptz)
to fleetwatt_service;

-- Energy of the whole fleet and of vehicle-meter pairs, by the rules and functions of 040_energy.sql.

-- What all vehicles reported: the same arithmetic, read in the order of time instead of vehicle by vehicle.
create or replace function fleet_delivered(edges timestamptz[])
returns table (place integer, vehicle_id text, kwh double precision, readings bigint)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    span tstzrange := tstzrange(edges[1], edges[array_upper(edges, 1)]);
    parts record;
begin
    select w.* into parts
    from rolled_up('vehicle', edges) as r
    cross join lateral split_window(span, r.days, r.hours) as w;
    return query
    select e.place, e.vehicle_id, sum(e.kwh), sum(e.readings)::bigint
    from (
        select width_bucket(d.day, edges) as place, d.vehicle_id, d.kwh_dc as kwh, d.readings
        from vehicle_daily_stored as d
        where d.day <@ parts.days and d.day >= lower(parts.days) and d.day < upper(parts.days)
        union all
        select width_bucket(h.hour, edges), h.vehicle_id, h.kwh_dc, h.readings
        from vehicle_hourly_stored as h
        where h.hour <@ parts.hours and h.hour >= lower(parts.hours) and h.hour < upper(parts.hours)
        union all
        select width_bucket(r.recorded_at, edges), r.vehicle_id, r.kwh_delivered_dc, 1
        from unnest(parts.rest) as part (span)
        cross join lateral (
            select s.recorded_at, s.vehicle_id, s.kwh_delivered_dc
            from vehicle_reading as s
            where
                s.recorded_at >= lower(part.span) and s.recorded_at < upper(part.span)
                and s.recorded_at >= lower(parts.rest) and s.recorded_at < upper(parts.rest)
            offset 0
        ) as r
    ) as e
    group by 1, 2;
end
$$;
comment on function fleet_delivered(timestamptz[]) is 'DC energy (kWh) that each vehicle reported, by window';

-- vehicle_performance for every vehicle that drew or reported anything in [window_from, window_to).
create or replace function fleet_performance(window_from timestamptz, window_to timestamptz)
returns table (
    vehicle_id text,
    kwh_ac double precision,
    meter_readings bigint,
    kwh_dc double precision,
    vehicle_readings bigint
)
language sql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
as $$
    select
        coalesce(b.vehicle_id, d.vehicle_id),
        coalesce(b.kwh, 0),
        coalesce(b.readings, 0),
        coalesce(d.kwh, 0),
        coalesce(d.readings, 0)
    from (
        select vehicle_id, sum(kwh) as kwh, sum(readings)::bigint as readings
        from billed(array[window_from, window_to])
        group by vehicle_id
    ) as b
    full join fleet_delivered(array[window_from, window_to]) as d on b.vehicle_id = d.vehicle_id
$$;
comment on function fleet_performance(timestamptz, timestamptz) is
'vehicle_performance of every vehicle that drew or reported something in [from, to)';

-- AC and DC of each vehicle-meter pair while it was connected. Where a vehicle drew from two meters at once,
-- nobody can tell what each of them delivered: those spans count for neither.
create or replace function pair_energy(
    window_from timestamptz, window_to timestamptz, wanted_meter text default null
)
returns table (
    vehicle_id text,
    meter_id text,
    kwh_ac double precision,
    meter_readings bigint,
    kwh_dc double precision,
    vehicle_readings bigint,
    connected_s double precision
)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    span tstzrange := tstzrange(window_from, window_to);
    edges timestamptz[] := array[window_from, window_to];
    meters record;
    vehicles record;
begin
    select r.* into meters from rolled_up('meter', edges) as r;
    select r.* into vehicles from rolled_up('vehicle', edges) as r;
    return query
    with pair as (
        select
            s.vehicle_id,
            s.meter_id,
            range_agg(s.during * span)
            - coalesce(
                (
                    select range_agg(o.during)
                    from charging_session as o
                    where o.vehicle_id = s.vehicle_id and o.during && span and o.meter_id <> s.meter_id
                ),
                '{}'
            ) as connected
        from charging_session as s
        where s.during && span and (wanted_meter is null or s.meter_id = wanted_meter)
        group by s.vehicle_id, s.meter_id
    )

    select
        p.vehicle_id, p.meter_id, coalesce(b.kwh, 0), coalesce(b.readings, 0),
        coalesce(d.kwh, 0), coalesce(d.readings, 0), coalesce(c.connected_s, 0)
    from pair as p
    cross join lateral (
        select sum(extract(epoch from upper(part.span) - lower(part.span)))::double precision as connected_s
        from unnest(p.connected) as part (span)
    ) as c
    cross join lateral (
        select sum(e.kwh) as kwh, sum(e.readings)::bigint as readings
        from unnest(p.connected) as part (span)
        cross join lateral meter_energy(p.meter_id, part.span, meters.days, meters.hours, edges) as e
    ) as b
    cross join lateral (
        select sum(e.kwh) as kwh, sum(e.readings)::bigint as readings
        from unnest(p.connected) as part (span)
        cross join lateral vehicle_energy(p.vehicle_id, part.span, vehicles.days, vehicles.hours, edges) as e
    ) as d;
end
$$;
comment on function pair_energy(timestamptz, timestamptz, text) is
'AC and DC (kWh) of each vehicle-meter pair, or a meter''s, while it alone was connected in [from, to), and how long';

-- What the fleet billed and delivered, window by window. Only whoever drew through a session is billed.
create or replace function fleet_totals(edges timestamptz[])
returns table (
    place integer,
    kwh_ac double precision,
    kwh_dc double precision,
    meter_readings bigint,
    vehicle_readings bigint,
    vehicles bigint
)
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    select
        t.place,
        sum(t.kwh_ac),
        sum(t.kwh_dc),
        sum(t.meter_readings)::bigint,
        sum(t.vehicle_readings)::bigint,
        count(distinct t.vehicle_id)
    from (
        select
            b.place, b.vehicle_id, b.kwh as kwh_ac, b.readings as meter_readings,
            0::double precision as kwh_dc, 0::bigint as vehicle_readings
        from billed(edges) as b
        union all
        select d.place, d.vehicle_id, 0, 0, d.kwh, d.readings
        from fleet_delivered(edges) as d
    ) as t
    group by t.place
$$;
comment on function fleet_totals(timestamptz[]) is
'AC billed, DC delivered (kWh), readings and vehicles of the whole fleet, window by window';

grant execute on function
fleet_delivered(timestamptz[]), fleet_performance(timestamptz, timestamptz), fleet_totals(timestamptz[]),
pair_energy(timestamptz, timestamptz, text)
to fleetwatt_service;
-- Views of the schema bi call it as whoever asks them.
grant execute on function fleet_totals(timestamptz[]) to fleetwatt_bi;

-- Energy of the whole fleet and of vehicle-meter pairs, by the rules and functions of 040_energy.sql.

-- What all vehicles reported, in the same three steps as 040_energy.sql goes for sessions. Rollups are read in the
-- order of time. What is missing in a run of hours is named hour by hour: of a multirange the planner has no idea how
-- many rows lie in it.

create or replace function delivered_parts(
    edges timestamptz[],
    out days tstzmultirange,
    out hours tstzmultirange,
    out rest tstzmultirange,
    out day_holes timestamptz[],
    out hour_holes timestamptz[]
)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = auto
as $$
begin
    select w.days, w.hours, w.rest
    into days, hours, rest
    from rolled_up('vehicle', edges) as r
    cross join lateral split_window(tstzrange(edges[1], edges[array_upper(edges, 1)]), r.days, r.hours) as w;
    day_holes := bins_between(days, interval '24 hours');
    hour_holes := bins_between(hours, interval '1 hour');
end
$$;
comment on function delivered_parts(timestamptz[]) is
'How answers over all vehicles are made up: days, other hours, the rest, and what is missing in between';

-- Not pinned to a search_path: see 020_windows.sql.
create or replace function delivered_whole(
    days tstzmultirange, hours tstzmultirange, day_holes timestamptz[], hour_holes timestamptz[]
)
returns table (at timestamptz, vehicle_id text, kwh double precision, readings bigint)
language sql
stable
parallel safe
as $$
    select t.day, t.vehicle_id, t.kwh_dc, t.readings
    from public.vehicle_daily_stored as t
    where t.day >= lower(days) and t.day < upper(days) and t.day <> all(day_holes)
    union all
    select t.hour, t.vehicle_id, t.kwh_dc, t.readings
    from public.vehicle_hourly_stored as t
    where t.hour >= lower(hours) and t.hour < upper(hours) and t.hour <> all(hour_holes)
$$;
comment on function delivered_whole(tstzmultirange, tstzmultirange, timestamptz[], timestamptz[]) is
'DC energy (kWh) and readings of all vehicles in rolled-up days and hours';

create or replace function delivered_odds(edges timestamptz[], rest tstzmultirange)
returns table (at timestamptz, vehicle_id text, kwh double precision, readings bigint)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
    if isempty(rest) then
        return;
    end if;
    -- Summed up by window, since each has some 60 an hour.
    return query
    select
        min(r.recorded_at), r.vehicle_id, sum(r.kwh_delivered_dc), count(*)
    from unnest(rest) as part (span)
    cross join lateral (
        select s.recorded_at, s.vehicle_id, s.kwh_delivered_dc
        from vehicle_reading as s
        where
            s.recorded_at >= lower(part.span) and s.recorded_at < upper(part.span)
            and s.recorded_at >= lower(rest) and s.recorded_at < upper(rest)
        offset 0
    ) as r
    group by r.vehicle_id, case when cardinality(edges) = 2 then 1 else width_bucket(r.recorded_at, edges) end;
end
$$;
comment on function delivered_odds(timestamptz[], tstzmultirange) is
'DC energy (kWh) and readings of all vehicles that only raw rows can answer';

create or replace function fleet_delivered(edges timestamptz[])
returns table (place integer, vehicle_id text, kwh double precision, readings bigint)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    parts record := delivered_parts(edges);
begin
    return query
    select
        case when cardinality(edges) = 2 then 1 else width_bucket(e.at, edges) end,
        e.vehicle_id, sum(e.kwh), sum(e.readings::double precision)::bigint
    from (
        select w.* from delivered_whole(parts.days, parts.hours, parts.day_holes, parts.hour_holes) as w
        union all
        select o.* from delivered_odds(edges, parts.rest) as o
    ) as e
    group by 1, 2;
end
$$;
comment on function fleet_delivered(timestamptz[]) is 'DC energy (kWh) that each vehicle reported, by window';

-- vehicle_performance for every vehicle that drew or reported anything in [window_from, window_to). One statement over
-- both sides, so that all processors share all of it. Counts are summed as floats, which are exact up to 2^53: the sum
-- of bigints is a numeric, and that costs as much again.
create or replace function fleet_performance(window_from timestamptz, window_to timestamptz)
returns table (
    vehicle_id text,
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
-- The table of sessions is small, yet each process would make a hash table of all of it for itself.
set min_parallel_table_scan_size = 0
as $$
declare
    edges timestamptz[] := array[window_from, window_to];
    ac record := billed_parts(edges);
    dc record := delivered_parts(edges);
begin
    return query
    select
        e.vehicle_id, sum(e.kwh_ac), sum(e.meter_readings)::bigint, sum(e.kwh_dc), sum(e.vehicle_readings)::bigint
    from (
        -- Every column has its type in every branch: a coercion in between would keep processes from sharing.
        select
            w.vehicle_id, w.kwh as kwh_ac, w.readings::double precision as meter_readings,
            0::double precision as kwh_dc, 0::double precision as vehicle_readings
        from billed_whole(edges, ac.days, ac.hours, ac.day_holes, ac.hour_holes) as w
        union all
        select o.vehicle_id, o.kwh, o.readings::double precision, 0::double precision, 0::double precision
        from billed_odds(edges, ac.exact, ac.days, ac.hours) as o
        union all
        select w.vehicle_id, 0::double precision, 0::double precision, w.kwh, w.readings::double precision
        from delivered_whole(dc.days, dc.hours, dc.day_holes, dc.hour_holes) as w
        union all
        select o.vehicle_id, 0::double precision, 0::double precision, o.kwh, o.readings::double precision
        from delivered_odds(edges, dc.rest) as o
    ) as e
    group by e.vehicle_id;
end
$$;
comment on function fleet_performance(timestamptz, timestamptz) is
'vehicle_performance of every vehicle that drew or reported something in [from, to)';

-- AC and DC of each vehicle-meter pair while it was connected. Where a vehicle drew from two meters at once,
-- nobody can tell what each of them delivered: those spans count for neither.
drop function if exists pair_energy(timestamptz, timestamptz);
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
        cross join lateral meter_energy(p.meter_id, part.span, meters.exact, meters.days, meters.hours, edges) as e
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
delivered_parts(timestamptz[]),
delivered_whole(tstzmultirange, tstzmultirange, timestamptz[], timestamptz[]),
delivered_odds(timestamptz[], tstzmultirange),
fleet_delivered(timestamptz[]), fleet_performance(timestamptz, timestamptz), fleet_totals(timestamptz[]),
pair_energy(timestamptz, timestamptz, text)
to fleetwatt_service;
-- Views of the schema bi call it as whoever asks them.
grant execute on function fleet_totals(timestamptz[]) to fleetwatt_bi;

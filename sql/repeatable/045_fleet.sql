-- Energy of the whole fleet, from balances where they are exact, and of vehicle-meter pairs.

-- How an answer over the fleet is made up, between the first and the last edge: whole days and hours whose balances are
-- exact, the spans that are left (rest), and vehicles whose sessions changed since, of which balances tell DC alone.
-- Of days and hours there is one run each, before the days (head) and after them (tail), and in them some that are
-- not exact (holes): of a multirange the planner has no idea how many rows lie in it.
create or replace function balance_parts(
    edges timestamptz[],
    out days tstzrange,
    out head tstzrange,
    out tail tstzrange,
    out day_holes timestamptz[],
    out hour_holes timestamptz[],
    out rest tstzmultirange,
    out changed text[],
    out meter_exact tstzmultirange,
    out meter_hours tstzmultirange,
    out vehicle_hours tstzmultirange
)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = auto
as $$
declare
    span tstzrange := tstzrange(edges[1], edges[array_upper(edges, 1)]);
    due tstzmultirange;
    whole record;
    hours tstzmultirange;
begin
    select
        coalesce(range_agg(d.during) filter (where d.vehicle_id is null), '{}'),
        coalesce(array_agg(distinct d.vehicle_id) filter (where d.vehicle_id is not null), '{}')
    into due, changed
    from balance_due as d
    where d.during && span;

    select
        m.exact as meter_exact, m.hours as meter_hours, v.hours as vehicle_hours, w.days, w.hours
    into whole
    from rolled_up('meter', edges) as m
    cross join rolled_up('vehicle', edges) as v
    cross join lateral split_window(span, m.days * v.days - due, m.hours * v.hours - due) as w;

    meter_exact := whole.meter_exact;
    meter_hours := whole.meter_hours;
    vehicle_hours := whole.vehicle_hours;
    days := range_merge(whole.days);
    day_holes := bins_of(tstzmultirange(days) - whole.days, interval '24 hours');
    -- Hours within the run of days are left to the rest: there are none, but for a late reading's day.
    hours := whole.hours - tstzmultirange(days);
    head := range_merge(hours * tstzmultirange(tstzrange(null, lower(days))));
    tail := case when isempty(days) then 'empty' else range_merge(hours * tstzmultirange(tstzrange(upper(days), null))) end;
    hour_holes := bins_of(tstzmultirange(head, tail) - hours, interval '1 hour');
    rest := tstzmultirange(span) - whole.days - hours;
end
$$;
comment on function balance_parts(timestamptz[]) is
'What answers over the fleet are made of: balances of days and hours, the rest, and whose sessions changed';

-- What each vehicle was billed and delivered, window by window: one statement, so that all processors share all of it.
create or replace function fleet_energy(edges timestamptz[])
returns table (
    place integer,
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
as $$
declare
    p record := balance_parts(edges);
begin
    return query
    select
        case when cardinality(edges) = 2 then 1 else width_bucket(e.at, edges) end,
        e.vehicle_id, sum(e.kwh_ac), sum(e.meter_readings), sum(e.kwh_dc), sum(e.vehicle_readings)
    from (
        -- Every column has its type in every branch: a coercion in between would keep processes from sharing.
        select
            b.day as at, b.vehicle_id,
            case when b.vehicle_id = any(p.changed) then 0 else b.kwh_ac end as kwh_ac,
            case when b.vehicle_id = any(p.changed) then 0 else b.meter_readings end as meter_readings,
            b.kwh_dc, b.vehicle_readings
        from balance_daily as b
        where b.day >= lower(p.days) and b.day < upper(p.days) and b.day <> all(p.day_holes)
        union all
        select
            b.hour, b.vehicle_id,
            case when b.vehicle_id = any(p.changed) then 0 else b.kwh_ac end,
            case when b.vehicle_id = any(p.changed) then 0 else b.meter_readings end,
            b.kwh_dc, b.vehicle_readings
        from balance_hourly as b
        where b.hour >= lower(p.head) and b.hour < upper(p.head) and b.hour <> all(p.hour_holes)
        union all
        select
            b.hour, b.vehicle_id,
            case when b.vehicle_id = any(p.changed) then 0 else b.kwh_ac end,
            case when b.vehicle_id = any(p.changed) then 0 else b.meter_readings end,
            b.kwh_dc, b.vehicle_readings
        from balance_hourly as b
        where b.hour >= lower(p.tail) and b.hour < upper(p.tail) and b.hour <> all(p.hour_holes)
        union all
        select r.at, r.vehicle_id, r.kwh, r.readings, 0::double precision, 0
        from billed_rest(edges, p.rest, p.changed, p.meter_exact, p.meter_hours) as r
        union all
        select r.at, r.vehicle_id, 0::double precision, 0, r.kwh, r.readings
        from delivered_rest(edges, p.rest, p.vehicle_hours) as r
    ) as e
    group by 1, e.vehicle_id
    -- Of a vehicle whose sessions are gone, balances may tell of nothing else.
    having sum(e.meter_readings) + sum(e.vehicle_readings) > 0;
end
$$;
comment on function fleet_energy(timestamptz[]) is
'What each vehicle was billed (AC) and delivered (DC), kWh, with readings, by window; of those with any';

-- Put into the query that calls it: not pinned to a search_path, see 020_windows.sql.
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
as $$
    select e.vehicle_id, e.kwh_ac, e.meter_readings, e.kwh_dc, e.vehicle_readings
    from public.fleet_energy(array[window_from, window_to]) as e
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
    select
        p.vehicle_id, p.meter_id, coalesce(e.kwh_ac, 0), coalesce(e.meter_readings, 0),
        coalesce(e.kwh_dc, 0), coalesce(e.vehicle_readings, 0), coalesce(c.connected_s, 0)
    from (
        select s.vehicle_id, s.meter_id, range_agg(s.during * span) as connected
        from charging_session as s
        where s.during && span and (wanted_meter is null or s.meter_id = wanted_meter)
        group by s.vehicle_id, s.meter_id
    ) as g
    cross join lateral connected_elsewhere(g.vehicle_id, g.meter_id, span) as o
    cross join lateral (select g.vehicle_id, g.meter_id, g.connected - o.spans as connected offset 0) as p
    cross join lateral (
        select sum(extract(epoch from upper(part.span) - lower(part.span)))::double precision as connected_s
        from unnest(p.connected) as part (span)
    ) as c
    left join lateral connected_energy(
        p.vehicle_id, p.meter_id, p.connected,
        meters.exact, meters.days, meters.hours, vehicles.days, vehicles.hours, edges
    ) as e on true;
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
        e.place, sum(e.kwh_ac), sum(e.kwh_dc), sum(e.meter_readings)::bigint, sum(e.vehicle_readings)::bigint, count(*)
    from fleet_energy(edges) as e
    group by e.place
$$;
comment on function fleet_totals(timestamptz[]) is
'AC billed, DC delivered (kWh), readings and vehicles of the whole fleet, window by window';

grant execute on function
balance_parts(timestamptz[]), fleet_energy(timestamptz[]), fleet_performance(timestamptz, timestamptz),
fleet_totals(timestamptz[]), pair_energy(timestamptz, timestamptz, text)
to fleetwatt_service;
-- Views of the schema bi call it as whoever asks them.
grant execute on function fleet_totals(timestamptz[]) to fleetwatt_bi;

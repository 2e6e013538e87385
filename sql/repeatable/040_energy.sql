-- Energy of meters and vehicles: rolled-up days and hours where they are exact, raw rows for everything else.
-- Every answer equals the same sums over the raw rows.
--
-- Answers come for one window or for many that follow each other: `edges` are the ends of these windows in
-- ascending order, and `place` n stands for [edges[n], edges[n + 1]). A rolled-up hour or day that an edge cuts is
-- left to the raw rows, so local days of any time zone are exact, also where they start at half past an hour.

-- Which days and hours of a stream answers may take from the rollups, between the first and the last edge.
drop function if exists rolled_up(text, timestamptz[]);
create function rolled_up(
    wanted text,
    edges timestamptz[],
    out exact tstzmultirange,
    out days tstzmultirange,
    out hours tstzmultirange
)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = auto
as $$
declare
    span tstzrange := tstzrange(edges[1], edges[array_upper(edges, 1)]);
begin
    select tstzmultirange(tstzrange('-infinity', p.refreshed_until) * span) - coalesce(stale.hours, '{}')
    into exact
    from rollup_progress as p
    cross join (
        select range_agg(tstzrange(s.hour, s.hour + interval '1 hour')) as hours
        from rollup_stale as s
        where
            s.stream = wanted and s.hour > lower(span) - interval '1 hour' and s.hour < upper(span)
            -- The rollup is all that is left of such an hour, whatever came late.
            and not raw_is_gone(wanted, s.hour, s.hour + interval '1 hour')
    ) as stale
    where p.stream = wanted;
    days := exact - cut_bins(edges, interval '24 hours');
    hours := exact - cut_bins(edges, interval '1 hour');
end
$$;
comment on function rolled_up(text, timestamptz[]) is
'Spans between the first and last edge in which a stream''s rollups are exact: all, and those of uncut days and hours';

-- Whether an answer may take a row of session_edge: its hour's rollup is exact, and no edge lies within the part.
create or replace function edge_is_exact(
    part_from timestamptz, part_to timestamptz, exact tstzmultirange, edges timestamptz[]
)
returns boolean
language sql
stable
parallel safe
as $$
    select
        tstzrange(part_from, part_to) <@ exact
        and (
            cardinality(edges) = 2
            or width_bucket(part_from, edges) = width_bucket(part_to - interval '1 microsecond', edges)
        )
$$;
comment on function edge_is_exact(timestamptz, timestamptz, tstzmultirange, timestamptz[]) is
'Whether the rollup of a part of an hour is exact, and the part lies in one window';

-- Energy of one meter over one span, window by window. Not pinned to a search_path: see 020_windows.sql.
drop function if exists meter_energy(text, tstzrange, tstzmultirange, tstzmultirange, timestamptz[]);
create or replace function meter_energy(
    wanted_meter text,
    asked tstzrange,
    exact tstzmultirange,
    rolled_days tstzmultirange,
    rolled_hours tstzmultirange,
    edges timestamptz[]
)
returns table (place integer, kwh double precision, readings bigint)
language sql
stable
parallel safe
as $$
    select e.place, e.kwh, e.readings
    from public.split_window(asked, rolled_days, rolled_hours) as w
    cross join lateral (
        select
            coalesce(range_agg(tstzrange(s.part_from, s.part_to)), '{}') as spans,
            array_agg(width_bucket(s.part_from, edges)) as places,
            array_agg(s.kwh_ac) as kwhs,
            array_agg(s.readings) as counts
        from public.cut_parts(asked, interval '1 hour') as c
        inner join public.session_edge as s
            on
                c.bin = s.hour and s.meter_id = wanted_meter
                and c.part_from = s.part_from and c.part_to = s.part_to
                and public.edge_is_exact(s.part_from, s.part_to, exact, edges)
    ) as cut
    cross join lateral (
        select width_bucket(d.day, edges) as place, sum(d.kwh_ac) as kwh, sum(d.readings)::bigint as readings
        from unnest(w.days) as part (span)
        cross join lateral (
            select s.day, s.kwh_ac, s.readings
            from public.meter_daily_stored as s
            where s.meter_id = wanted_meter and s.day >= lower(part.span) and s.day < upper(part.span)
            offset 0
        ) as d
        group by 1
        union all
        select width_bucket(h.hour, edges), sum(h.kwh_ac), sum(h.readings)::bigint
        from unnest(w.hours) as part (span)
        cross join lateral (
            select s.hour, s.kwh_ac, s.readings
            from public.meter_hourly_stored as s
            where
                s.meter_id = wanted_meter and s.hour >= lower(part.span) and s.hour < upper(part.span)
                and s.hour >= edges[1] and s.hour < edges[array_upper(edges, 1)]
            offset 0
        ) as h
        group by 1
        union all
        select p.place, p.kwh, p.readings
        from unnest(cut.places, cut.kwhs, cut.counts) as p (place, kwh, readings)
        where p.readings > 0
        union all
        select width_bucket(r.recorded_at, edges), sum(r.kwh_consumed_ac), count(*)
        from unnest(w.rest - cut.spans) as part (span)
        cross join lateral (
            select s.recorded_at, s.kwh_consumed_ac
            from public.meter_reading as s
            where
                s.meter_id = wanted_meter
                and s.recorded_at >= lower(part.span) and s.recorded_at < upper(part.span)
                and s.recorded_at >= edges[1] and s.recorded_at < edges[array_upper(edges, 1)]
            offset 0
        ) as r
        group by 1
    ) as e
$$;
comment on function meter_energy(text, tstzrange, tstzmultirange, tstzmultirange, tstzmultirange, timestamptz[]) is
'AC energy (kWh) and readings of one meter in a span, window by window, from rollups where they are exact';

create or replace function vehicle_energy(
    wanted_vehicle text,
    asked tstzrange,
    rolled_days tstzmultirange,
    rolled_hours tstzmultirange,
    edges timestamptz[]
)
returns table (
    place integer,
    kwh double precision,
    readings bigint,
    battery_temp_sum double precision,
    battery_temp_min double precision,
    battery_temp_max double precision,
    soc_min double precision,
    soc_max double precision,
    soc_first double precision,
    soc_last double precision,
    at timestamptz
)
language sql
stable
parallel safe
as $$
    select
        e.place,
        sum(e.kwh),
        sum(e.readings)::bigint,
        sum(e.battery_temp_sum),
        min(e.battery_temp_min),
        max(e.battery_temp_max),
        min(e.soc_min),
        max(e.soc_max),
        public.first(e.soc_first, e.at),
        public.last(e.soc_last, e.at),
        min(e.at)
    from public.split_window(asked, rolled_days, rolled_hours) as w
    cross join lateral (
        select
            width_bucket(d.day, edges) as place,
            d.day as at,
            d.kwh_dc as kwh,
            d.readings,
            d.battery_temp_sum,
            d.battery_temp_min,
            d.battery_temp_max,
            d.soc_min,
            d.soc_max,
            d.soc_first,
            d.soc_last
        from unnest(w.days) as part (span)
        cross join lateral (
            select s.*
            from public.vehicle_daily_stored as s
            where s.vehicle_id = wanted_vehicle and s.day >= lower(part.span) and s.day < upper(part.span)
            offset 0
        ) as d
        union all
        select
            width_bucket(h.hour, edges),
            h.hour,
            h.kwh_dc,
            h.readings,
            h.battery_temp_sum,
            h.battery_temp_min,
            h.battery_temp_max,
            h.soc_min,
            h.soc_max,
            h.soc_first,
            h.soc_last
        from unnest(w.hours) as part (span)
        cross join lateral (
            select s.*
            from public.vehicle_hourly_stored as s
            where
                s.vehicle_id = wanted_vehicle and s.hour >= lower(part.span) and s.hour < upper(part.span)
                and s.hour >= edges[1] and s.hour < edges[array_upper(edges, 1)]
            offset 0
        ) as h
        union all
        select
            width_bucket(r.recorded_at, edges),
            r.recorded_at,
            r.kwh_delivered_dc,
            1,
            r.battery_temp,
            r.battery_temp,
            r.battery_temp,
            r.soc,
            r.soc,
            r.soc,
            r.soc
        from unnest(w.rest) as part (span)
        cross join lateral (
            select s.recorded_at, s.kwh_delivered_dc, s.battery_temp, s.soc
            from public.vehicle_reading as s
            where
                s.vehicle_id = wanted_vehicle
                and s.recorded_at >= lower(part.span) and s.recorded_at < upper(part.span)
                and s.recorded_at >= edges[1] and s.recorded_at < edges[array_upper(edges, 1)]
            offset 0
        ) as r
    ) as e
    group by e.place
$$;
comment on function vehicle_energy(text, tstzrange, tstzmultirange, tstzmultirange, timestamptz[]) is
'DC energy (kWh), readings, battery temperature and SoC of one vehicle in a span, window by window';

-- What the meters of a vehicle's charging sessions billed, window by window and meter. No reading counts twice,
-- since a meter serves one vehicle at a time.
drop function if exists billed(timestamptz[], text);
create function billed(edges timestamptz[], wanted_vehicle text)
returns table (place integer, meter_id text, kwh double precision, readings bigint)
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
    select e.place, s.meter_id, sum(e.kwh), sum(e.readings)::bigint
    from charging_session as s
    cross join lateral meter_energy(
        s.meter_id, s.during * span, rolled.exact, rolled.days, rolled.hours, edges
    ) as e
    where s.vehicle_id = wanted_vehicle and s.during && span
    group by 1, 2;
end
$$;
comment on function billed(timestamptz[], text) is
'AC energy (kWh) billed to a vehicle through its sessions, by window and meter';

-- What one vehicle reported, window by window.
create or replace function delivered(edges timestamptz[], wanted_vehicle text)
returns table (
    place integer,
    kwh double precision,
    readings bigint,
    battery_temp_sum double precision,
    battery_temp_min double precision,
    battery_temp_max double precision,
    soc_min double precision,
    soc_max double precision,
    soc_first double precision,
    soc_last double precision
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
    select r.* into rolled from rolled_up('vehicle', edges) as r;
    return query
    select
        e.place, e.kwh, e.readings, e.battery_temp_sum, e.battery_temp_min, e.battery_temp_max,
        e.soc_min, e.soc_max, e.soc_first, e.soc_last
    from vehicle_energy(wanted_vehicle, span, rolled.days, rolled.hours, edges) as e;
end
$$;
comment on function delivered(timestamptz[], text) is
'DC energy (kWh), battery temperature and SoC that a vehicle reported, by window';

-- Energy summary of one vehicle over [window_from, window_to): what was billed, what arrived. The two sides are
-- summed apart, so unequal clocks or counts of readings cannot distort either.
create or replace function vehicle_performance(
    wanted_vehicle text, window_from timestamptz, window_to timestamptz
)
returns table (
    kwh_ac double precision,
    kwh_dc double precision,
    battery_temp_sum double precision,
    meter_readings bigint,
    vehicle_readings bigint
)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
as $$
begin
    return query
    select
        coalesce(b.kwh, 0),
        coalesce(d.kwh, 0),
        d.battery_temp_sum,
        coalesce(b.readings, 0),
        coalesce(d.readings, 0)
    from (
        select sum(m.kwh) as kwh, sum(m.readings)::bigint as readings
        from billed(array[window_from, window_to], wanted_vehicle) as m
    ) as b
    left join delivered(array[window_from, window_to], wanted_vehicle) as d on true;
end
$$;
comment on function vehicle_performance(text, timestamptz, timestamptz) is
'Energy summary of one vehicle over [from, to): AC billed through its sessions, DC delivered, counts; kWh';

grant execute on function
rolled_up(text, timestamptz[]),
edge_is_exact(timestamptz, timestamptz, tstzmultirange, timestamptz[]),
meter_energy(text, tstzrange, tstzmultirange, tstzmultirange, tstzmultirange, timestamptz[]),
vehicle_energy(text, tstzrange, tstzmultirange, tstzmultirange, timestamptz[]),
billed(timestamptz[], text), delivered(timestamptz[], text), vehicle_performance(text, timestamptz, timestamptz)
to fleetwatt_service;

-- What all sessions drew, at once: what billed() and fleet_performance() are made of.
-- What meters counted for sessions, in three steps, since all sessions of a fleet's day are some 20,000 and have
-- 240,000 hours: a call of meter_energy for each of them took ten times as long.
--   billed_parts    which rolled-up days and hours there are, once for all sessions
--   billed_whole    rows of them that lie wholly in sessions: one join, which the planner may share out to processes
--   billed_odds     what is left: parts of hours at the ends of sessions and of the span, hours beside the whole days
--                   of long sessions, and whatever only raw rows can answer

create or replace function billed_parts(
    edges timestamptz[],
    out exact tstzmultirange,
    out days tstzmultirange,
    out hours tstzmultirange,
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
    select r.exact, r.hours, w.days
    into exact, hours, days
    from rolled_up('meter', edges) as r
    cross join lateral split_window(tstzrange(edges[1], edges[array_upper(edges, 1)]), r.days, '{}') as w;
    day_holes := bins_between(days, interval '24 hours');
    hour_holes := bins_between(hours, interval '1 hour');
end
$$;
comment on function billed_parts(timestamptz[]) is
'What answers may take from the meters'' rollups: exact spans, whole days, whole hours, and what is missing in between';

-- Each session, cut to the whole span, with the runs of whole hours and whole days in it; such a run may be empty and
-- then ends where it starts, or before. Like the next one not pinned to a search_path: see 020_windows.sql.
create or replace function drawn_sessions(edges timestamptz[])
returns table (
    vehicle_id text,
    meter_id text,
    cut_from timestamptz,
    cut_to timestamptz,
    hour_from timestamptz,
    hour_to timestamptz,
    day_from timestamptz,
    day_to timestamptz
)
language sql
stable
parallel safe
as $$
    select
        c.vehicle_id,
        c.meter_id,
        c.cut_from,
        c.cut_to,
        date_bin('1 hour', c.cut_from + interval '1 hour' - interval '1 microsecond', '2000-01-01 00:00+00'),
        date_bin('1 hour', c.cut_to, '2000-01-01 00:00+00'),
        date_bin('24 hours', c.cut_from + interval '24 hours' - interval '1 microsecond', '2000-01-01 00:00+00'),
        date_bin('24 hours', c.cut_to, '2000-01-01 00:00+00')
    from (
        select
            s.vehicle_id,
            s.meter_id,
            greatest(lower(s.during), edges[1]) as cut_from,
            least(upper(s.during), edges[array_upper(edges, 1)]) as cut_to
        from public.charging_session as s
        where s.during && tstzrange(edges[1], edges[array_upper(edges, 1)])
    ) as c
    -- Worked out once a session, not once for each of its hours. (As text: only a plain constant lets processes share.)
    offset '0'
$$;
comment on function drawn_sessions(timestamptz[]) is
'Sessions between the first and the last edge, cut to that span: their ends, whole hours and whole days';

create or replace function billed_whole(
    edges timestamptz[],
    days tstzmultirange,
    hours tstzmultirange,
    day_holes timestamptz[],
    hour_holes timestamptz[]
)
returns table (at timestamptz, vehicle_id text, meter_id text, kwh double precision, readings bigint)
language sql
stable
parallel safe
as $$
    select t.day, d.vehicle_id, d.meter_id, t.kwh_ac, t.readings
    from public.drawn_sessions(edges) as d
    inner join public.meter_daily_stored as t
        on d.meter_id = t.meter_id and d.day_from <= t.day and d.day_to > t.day
    where t.day >= lower(days) and t.day < upper(days) and t.day <> all(day_holes)
    union all
    select t.hour, d.vehicle_id, d.meter_id, t.kwh_ac, t.readings
    from public.drawn_sessions(edges) as d
    inner join public.meter_hourly_stored as t
        on d.meter_id = t.meter_id and d.hour_from <= t.hour and d.hour_to > t.hour
    where
        t.hour >= lower(hours) and t.hour < upper(hours) and t.hour <> all(hour_holes)
        and (isempty(days) or d.day_from >= d.day_to)
$$;
comment on function billed_whole(timestamptz[], tstzmultirange, tstzmultirange, timestamptz[], timestamptz[]) is
'AC energy (kWh) and readings of rolled-up days, and of hours of sessions without any, that lie wholly in sessions';

create or replace function billed_odds(
    edges timestamptz[], exact tstzmultirange, days tstzmultirange, hours tstzmultirange
)
returns table (at timestamptz, vehicle_id text, meter_id text, kwh double precision, readings bigint)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    asked_from timestamptz := edges[1];
    asked_to timestamptz := edges[array_upper(edges, 1)];
begin
    return query
    with drawn as materialized (
        select d.* from drawn_sessions(edges) as d
    ),

    edge as materialized (
        select p.vehicle_id, p.meter_id, p.part_from, p.part_to, e.kwh_ac, e.readings
        from (
            select
                d.vehicle_id, d.meter_id, d.hour_from - interval '1 hour' as hour, d.cut_from as part_from,
                least(d.hour_from, d.cut_to) as part_to
            from drawn as d
            where d.hour_from > d.cut_from
            union all
            -- Unless it is the part above, of a session within one hour.
            select d.vehicle_id, d.meter_id, d.hour_to, d.hour_to, d.cut_to
            from drawn as d
            where d.hour_to < d.cut_to and d.hour_to >= d.cut_from
        ) as p
        left join session_edge as e
            on
                p.hour = e.hour and p.meter_id = e.meter_id
                and p.part_from = e.part_from and p.part_to = e.part_to
                and e.hour > asked_from - interval '1 hour' and e.hour < asked_to
                and edge_is_exact(e.part_from, e.part_to, exact, edges)
    ),

    rest as (
        select e.vehicle_id, e.meter_id, e.part_from as since, e.part_to as until
        from edge as e
        where e.readings is null
        union all
        select d.vehicle_id, d.meter_id, lower(r.span), upper(r.span)
        from drawn as d
        cross join lateral unnest(tstzmultirange(tstzrange(d.hour_from, d.hour_to)) - hours) as r (span)
        where d.hour_from < d.hour_to and not tstzrange(d.hour_from, d.hour_to) <@ hours
    )

    select e.part_from, e.vehicle_id, e.meter_id, e.kwh_ac, e.readings
    from edge as e
    where e.readings > 0
    union all
    select h.hour, d.vehicle_id, d.meter_id, h.kwh_ac, h.readings
    from drawn as d
    cross join lateral unnest(
        tstzmultirange(tstzrange(d.hour_from, d.hour_to)) * hours
        - tstzmultirange(tstzrange(d.day_from, d.day_to)) * days
    ) as w (span)
    cross join lateral (
        select t.hour, t.kwh_ac, t.readings
        from meter_hourly_stored as t
        where
            t.meter_id = d.meter_id and t.hour >= lower(w.span) and t.hour < upper(w.span)
            and t.hour >= asked_from and t.hour < asked_to
        offset 0
    ) as h
    where not isempty(days) and d.day_from < d.day_to
    union all
    select m.recorded_at, r.vehicle_id, r.meter_id, m.kwh_consumed_ac, 1
    from rest as r
    cross join lateral (
        select t.recorded_at, t.kwh_consumed_ac
        from meter_reading as t
        where
            t.meter_id = r.meter_id and t.recorded_at >= r.since and t.recorded_at < r.until
            and t.recorded_at >= asked_from and t.recorded_at < asked_to
        offset 0
    ) as m;
end
$$;
comment on function billed_odds(timestamptz[], tstzmultirange, tstzmultirange, tstzmultirange) is
'AC energy (kWh) and readings of sessions that billed_whole leaves out: parts of hours, and what only raw rows answer';

grant execute on function
billed_parts(timestamptz[]), drawn_sessions(timestamptz[]),
billed_whole(timestamptz[], tstzmultirange, tstzmultirange, timestamptz[], timestamptz[]),
billed_odds(timestamptz[], tstzmultirange, tstzmultirange, tstzmultirange)
to fleetwatt_service;

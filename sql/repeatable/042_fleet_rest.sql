-- What balances do not answer: spans in which they are not exact, and vehicles whose sessions changed. It is worked
-- out from the rollups of each stream where these are exact, and from raw rows elsewhere; for all sessions and all
-- vehicles at once, since a call of meter_energy for each session of a fleet takes ten times as long.

-- What meters counted for sessions after all that is rolled up, of vehicles that have not `changed`. Where many charge,
-- nearly all rows of that span are wanted: one look at each, in the order they lie in, takes half the time of an index
-- search a session. Statistics do not know these rows yet, so a plan made by them took them for one, and each row
-- looked for its session anew: 10 s instead of 0.2.
create or replace function billed_live(edges timestamptz[], live tstzrange, changed text[])
returns table (at timestamptz, vehicle_id text, kwh double precision, readings integer)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
set enable_nestloop = off
as $$
begin
    return query
    select min(r.recorded_at), s.vehicle_id, sum(r.kwh_consumed_ac), count(*)::integer
    from charging_session as s
    inner join meter_reading as r
        on
            s.meter_id = r.meter_id
            and r.recorded_at >= lower(s.during) and r.recorded_at < coalesce(upper(s.during), 'infinity')
    where
        s.during && live and s.vehicle_id <> all(changed)
        and r.recorded_at >= lower(live) and r.recorded_at < upper(live)
    group by s.vehicle_id, case when cardinality(edges) = 2 then 1 else width_bucket(r.recorded_at, edges) end;
end
$$;
comment on function billed_live(timestamptz[], tstzrange, text[]) is
'AC energy (kWh) and readings of all sessions in a span that is not rolled up, but for some vehicles'' sessions';

-- What meters counted for sessions in the spans `rest`, and of the vehicles `changed` between the first and the last
-- edge. `exact` and `hours` are the meters' rolled_up().
create or replace function billed_rest(
    edges timestamptz[], rest tstzmultirange, changed text[], exact tstzmultirange, hours tstzmultirange
)
returns table (at timestamptz, vehicle_id text, kwh double precision, readings integer)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    asked_from timestamptz := edges[1];
    asked_to timestamptz := edges[array_upper(edges, 1)];
    -- What lies after all that is rolled up: one run.
    live tstzrange := range_merge(rest * tstzmultirange(tstzrange(upper(exact), null)));
begin
    if isempty(rest) and cardinality(changed) = 0 then
        return;
    end if;
    return query
    with drawn as materialized (
        select
            c.vehicle_id,
            c.meter_id,
            c.cut_from,
            c.cut_to,
            date_bin('1 hour', c.cut_from + interval '1 hour' - interval '1 microsecond', '2000-01-01 00:00+00')
            as hour_from,
            date_bin('1 hour', c.cut_to, '2000-01-01 00:00+00') as hour_to
        from (
            select
                s.vehicle_id, s.meter_id,
                greatest(lower(s.during), lower(r.span)) as cut_from,
                least(upper(s.during), upper(r.span)) as cut_to
            from unnest(rest - tstzmultirange(live)) as r (span)
            inner join charging_session as s on r.span && s.during
            where s.vehicle_id <> all(changed)
            union all
            select
                s.vehicle_id, s.meter_id,
                greatest(lower(s.during), asked_from), least(upper(s.during), asked_to)
            from charging_session as s
            where s.vehicle_id = any(changed) and s.during && tstzrange(asked_from, asked_to)
        ) as c
    ),

    edge as materialized (
        select p.vehicle_id, p.meter_id, p.part_from, p.part_to, e.kwh_ac, e.readings
        from (
            select d.vehicle_id, d.meter_id, cut.bin as hour, cut.part_from, cut.part_to
            from drawn as d
            cross join lateral cut_parts(tstzrange(d.cut_from, d.cut_to), interval '1 hour') as cut
        ) as p
        left join session_edge as e
            on
                p.hour = e.hour and p.meter_id = e.meter_id
                and p.part_from = e.part_from and p.part_to = e.part_to
                and e.hour > asked_from - interval '1 hour' and e.hour < asked_to
                and edge_is_exact(e.part_from, e.part_to, exact, edges)
    ),

    raw as (
        select e.vehicle_id, e.meter_id, e.part_from as since, e.part_to as until
        from edge as e
        where e.readings is null
        union all
        select d.vehicle_id, d.meter_id, lower(r.span), upper(r.span)
        from drawn as d
        cross join lateral unnest(tstzmultirange(tstzrange(d.hour_from, d.hour_to)) - hours) as r (span)
        where d.hour_from < d.hour_to and not tstzrange(d.hour_from, d.hour_to) <@ hours
    )

    select e.part_from, e.vehicle_id, e.kwh_ac, e.readings::integer
    from edge as e
    where e.readings > 0
    union all
    select h.hour, d.vehicle_id, h.kwh_ac, h.readings::integer
    from drawn as d
    cross join lateral unnest(tstzmultirange(tstzrange(d.hour_from, d.hour_to)) * hours) as w (span)
    cross join lateral (
        select t.hour, t.kwh_ac, t.readings
        from meter_hourly_stored as t
        where
            t.meter_id = d.meter_id and t.hour >= lower(w.span) and t.hour < upper(w.span)
            and t.hour >= asked_from and t.hour < asked_to
        offset 0
    ) as h
    where d.hour_from < d.hour_to
    union all
    -- Summed up by window, since each has some 60 an hour.
    select min(m.recorded_at), r.vehicle_id, sum(m.kwh_consumed_ac), count(*)::integer
    from raw as r
    cross join lateral (
        select t.recorded_at, t.kwh_consumed_ac
        from meter_reading as t
        where
            t.meter_id = r.meter_id and t.recorded_at >= r.since and t.recorded_at < r.until
            and t.recorded_at >= asked_from and t.recorded_at < asked_to
        offset 0
    ) as m
    group by r.vehicle_id, case when cardinality(edges) = 2 then 1 else width_bucket(m.recorded_at, edges) end;
    if not isempty(live) then
        return query
        select l.at, l.vehicle_id, l.kwh, l.readings
        from billed_live(edges, live, changed) as l;
    end if;
end
$$;
comment on function billed_rest(timestamptz[], tstzmultirange, text[], tstzmultirange, tstzmultirange) is
'AC energy (kWh) and readings of all sessions in some spans, and of some vehicles'' sessions in all of the window';

-- What vehicles reported in the spans `rest`; `hours` are the vehicles' rolled_up().
create or replace function delivered_rest(edges timestamptz[], rest tstzmultirange, hours tstzmultirange)
returns table (at timestamptz, vehicle_id text, kwh double precision, readings integer)
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    rolled tstzmultirange := rest * hours;
    raw tstzmultirange := rest - hours;
begin
    if not isempty(rolled) then
        return query
        select h.hour, h.vehicle_id, h.kwh_dc, h.readings::integer
        from unnest(rolled) as part (span)
        cross join lateral (
            select t.hour, t.vehicle_id, t.kwh_dc, t.readings
            from vehicle_hourly_stored as t
            where
                t.hour >= lower(part.span) and t.hour < upper(part.span)
                and t.hour >= lower(rolled) and t.hour < upper(rolled)
            offset 0
        ) as h;
    end if;
    if not isempty(raw) then
        return query
        select
            min(r.recorded_at), r.vehicle_id, sum(r.kwh_delivered_dc), count(*)::integer
        from unnest(raw) as part (span)
        cross join lateral (
            select s.recorded_at, s.vehicle_id, s.kwh_delivered_dc
            from vehicle_reading as s
            where
                s.recorded_at >= lower(part.span) and s.recorded_at < upper(part.span)
                and s.recorded_at >= lower(raw) and s.recorded_at < upper(raw)
            offset 0
        ) as r
        group by r.vehicle_id, case when cardinality(edges) = 2 then 1 else width_bucket(r.recorded_at, edges) end;
    end if;
end
$$;
comment on function delivered_rest(timestamptz[], tstzmultirange, tstzmultirange) is
'DC energy (kWh) and readings of all vehicles in some spans, from rolled-up hours and raw rows';

grant execute on function
billed_live(timestamptz[], tstzrange, text[]),
billed_rest(timestamptz[], tstzmultirange, text[], tstzmultirange, tstzmultirange),
delivered_rest(timestamptz[], tstzmultirange, tstzmultirange)
to fleetwatt_service;

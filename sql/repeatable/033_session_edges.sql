-- Rolled-up parts of hours. A row of session_edge says what a meter's raw rows in a part of an hour add up to, and
-- names no session: where one is changed or deleted, its rows are as true as before, and nobody asks for them. What a
-- refresh owes them is what it owes the hour's own rollup: an hour that is rolled up anew gets its rows anew in the
-- transaction that settles it, so by 030_stale_hours.sql they are exact wherever the hour's rollup is. A part that has
-- no row is read from the raw rows, as if there were no such table.

-- Rolls up the parts of the hours [hour_from, hour_to) that sessions cover, and forgets those that were there.
create or replace function store_session_edges(hour_from timestamptz, hour_to timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
    delete from session_edge as e where e.hour >= hour_from and e.hour < hour_to;
    insert into session_edge (hour, meter_id, part_from, part_to, kwh_ac, readings)
    select p.hour, p.meter_id, p.part_from, p.part_to, coalesce(r.kwh, 0), r.readings
    from (
        select c.bin as hour, s.meter_id, c.part_from, c.part_to
        from charging_session as s
        cross join lateral cut_parts(s.during, interval '1 hour') as c
        where s.during && tstzrange(hour_from, hour_to) and c.bin >= hour_from and c.bin < hour_to
    ) as p
    cross join lateral (
        select sum(m.kwh_consumed_ac) as kwh, count(*) as readings
        from meter_reading as m
        where
            m.meter_id = p.meter_id and m.recorded_at >= p.part_from and m.recorded_at < p.part_to
            and m.recorded_at >= hour_from and m.recorded_at < hour_to
    ) as r
    order by p.hour, p.meter_id;
end
$$;
comment on function store_session_edges(timestamptz, timestamptz) is
'Rolls up the parts that sessions cover of the hours [from, to) anew; a step of refresh_rollups';

-- Does the same for sessions that came, or were changed, when their hours were rolled up already: so many log rows at
-- a time. An hour that is stale has its turn in the next refresh, and one whose raw rows are gone has nothing to give.
create or replace function fill_session_edges(most integer)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    seen bigint[];
    wanted text[];
    gone tstzmultirange;
    line timestamptz := (select p.refreshed_until from rollup_progress as p where p.stream = 'meter');
    hours_from timestamptz;
    hours_to timestamptz;
begin
    select array_agg(d.due_id), array_agg(distinct d.session_id)
    into seen, wanted
    from (select due_id, session_id from session_edge_due order by due_id limit most) as d;
    if seen is null then
        return false;
    end if;
    select coalesce(range_agg(tstzrange(c.range_start, c.range_end)), '{}')
    into gone
    from rollup_chunk as c
    where c.stream = 'meter' and to_regclass(c.chunk_name) is null;
    -- The span that they lie in leaves all other chunks out.
    select min(c.bin), max(c.bin) + interval '1 hour'
    into hours_from, hours_to
    from charging_session as s
    cross join lateral cut_parts(s.during, interval '1 hour') as c
    where s.session_id = any(wanted) and c.bin < line;
    insert into session_edge (hour, meter_id, part_from, part_to, kwh_ac, readings)
    select p.hour, p.meter_id, p.part_from, p.part_to, coalesce(r.kwh, 0), r.readings
    from (
        select c.bin as hour, s.meter_id, c.part_from, c.part_to
        from charging_session as s
        cross join lateral cut_parts(s.during, interval '1 hour') as c
        where
            s.session_id = any(wanted) and c.bin < line and not c.bin <@ gone
            and not exists (
                select from session_edge as e
                where
                    e.hour = c.bin and e.meter_id = s.meter_id
                    and e.part_from = c.part_from and e.part_to = c.part_to
            )
    ) as p
    cross join lateral (
        select sum(m.kwh_consumed_ac) as kwh, count(*) as readings
        from meter_reading as m
        where
            m.meter_id = p.meter_id and m.recorded_at >= p.part_from and m.recorded_at < p.part_to
            and m.recorded_at >= hours_from and m.recorded_at < hours_to
    ) as r
    order by p.hour, p.meter_id;
    delete from session_edge_due where due_id = any(seen);
    return true;
end
$$;
comment on function fill_session_edges(integer) is
'Rolls up missing parts of hours of sessions that came or changed, for so many log rows; false where none is left';

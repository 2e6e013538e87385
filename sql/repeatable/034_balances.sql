-- Energy balances: what each vehicle was billed and delivered in an hour, and in a day. They are made of the rollups of
-- both streams and of the sessions, so a balance is exact where
--   both streams' rollups of the hour are exact (030_stale_hours.sql): a refresh that rolls up an hour anew stores its
--   balances anew in the transaction that settles it;
--   and no session of the vehicle changed there since: whoever changes one logs the spans that this touches in
--   balance_due, in the same transaction, and a refresh deletes exactly the log rows that it saw before it began.
-- What is not exact is worked out from rollups, sessions and raw rows, as if there were no balances.

-- Stores the balances of the hours [hour_from, hour_to) anew, as far as both streams are rolled up, and of the days
-- that they complete or belong to; of some vehicles, or of all.
create or replace function store_balances(
    hour_from timestamptz, hour_to timestamptz, wanted text[] default null
)
returns void
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    line timestamptz := (select min(p.refreshed_until) from rollup_progress as p);
    hours_to timestamptz := least(hour_to, line);
    day_from timestamptz := date_bin('24 hours', hour_from, '2000-01-01 00:00+00');
    day_to timestamptz;
begin
    if hour_from >= hours_to then
        return;
    end if;
    delete from balance_hourly as b
    where b.hour >= hour_from and b.hour < hours_to and (wanted is null or b.vehicle_id = any(wanted));
    insert into balance_hourly (hour, vehicle_id, kwh_ac, meter_readings, kwh_dc, vehicle_readings)
    select
        e.hour, e.vehicle_id, sum(e.kwh_ac), sum(e.meter_readings), sum(e.kwh_dc), sum(e.vehicle_readings)
    from (
        select
            t.hour, s.vehicle_id, t.kwh_ac, t.readings as meter_readings,
            0::double precision as kwh_dc, 0::bigint as vehicle_readings
        from charging_session as s
        inner join meter_hourly_stored as t
            on
                s.meter_id = t.meter_id
                and lower(s.during) <= t.hour and coalesce(upper(s.during), 'infinity') >= t.hour + interval '1 hour'
        where
            s.during && tstzrange(hour_from, hours_to) and (wanted is null or s.vehicle_id = any(wanted))
            and t.hour >= hour_from and t.hour < hours_to
        union all
        select
            p.bin, p.vehicle_id, coalesce(c.kwh_ac, r.kwh_ac, 0), coalesce(c.readings, r.readings), 0, 0
        from (
            select s.vehicle_id, s.meter_id, cut.bin, cut.part_from, cut.part_to
            from charging_session as s
            cross join lateral cut_parts(s.during, interval '1 hour') as cut
            where
                s.during && tstzrange(hour_from, hours_to) and (wanted is null or s.vehicle_id = any(wanted))
                and cut.bin >= hour_from and cut.bin < hours_to
        ) as p
        left join session_edge as c
            on p.bin = c.hour and p.meter_id = c.meter_id and p.part_from = c.part_from and p.part_to = c.part_to
        left join lateral (
            select sum(m.kwh_consumed_ac) as kwh_ac, count(*) as readings
            from meter_reading as m
            where
                c.readings is null and m.meter_id = p.meter_id
                and m.recorded_at >= p.part_from and m.recorded_at < p.part_to
                and m.recorded_at >= hour_from and m.recorded_at < hours_to
        ) as r on true
        union all
        select t.hour, t.vehicle_id, 0, 0, t.kwh_dc, t.readings
        from vehicle_hourly_stored as t
        where
            t.hour >= hour_from and t.hour < hours_to and (wanted is null or t.vehicle_id = any(wanted))
    ) as e
    group by e.hour, e.vehicle_id
    having sum(e.meter_readings) + sum(e.vehicle_readings) > 0
    order by e.hour, e.vehicle_id;

    -- A day that is not over is stored with its last hour.
    day_to := date_bin('24 hours', line, '2000-01-01 00:00+00');
    day_to := least(day_to, date_bin('24 hours', hours_to + interval '23 hours', '2000-01-01 00:00+00'));
    if day_from >= day_to then
        return;
    end if;
    delete from balance_daily as b
    where b.day >= day_from and b.day < day_to and (wanted is null or b.vehicle_id = any(wanted));
    insert into balance_daily (day, vehicle_id, kwh_ac, meter_readings, kwh_dc, vehicle_readings)
    select
        date_bin('24 hours', b.hour, '2000-01-01 00:00+00'), b.vehicle_id,
        sum(b.kwh_ac), sum(b.meter_readings), sum(b.kwh_dc), sum(b.vehicle_readings)
    from balance_hourly as b
    where b.hour >= day_from and b.hour < day_to and (wanted is null or b.vehicle_id = any(wanted))
    group by 1, 2
    order by 1, 2;
end
$$;
comment on function store_balances(timestamptz, timestamptz, text[]) is
'Stores balances of the hours [from, to) and of their days anew, of some vehicles or all; a step of refresh_rollups';

-- Does what is logged as due: so many log rows of vehicles whose sessions changed, and a day of what all lack.
create or replace function fill_balances(most integer)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    line timestamptz := (select min(p.refreshed_until) from rollup_progress as p);
    -- Nothing is rolled up before that.
    first_hour timestamptz := coalesce(
        least(
            (select min(m.hour) from meter_hourly_stored as m), (select min(v.hour) from vehicle_hourly_stored as v)
        ),
        line
    );
    seen bigint[];
    work record;
    everybody record;
    day_from timestamptz;
begin
    select array_agg(d.due_id)
    into seen
    from (select due_id from balance_due where vehicle_id is not null order by due_id limit most) as d;
    for work in
        select
            bin.day, array_agg(distinct d.vehicle_id) as vehicles,
            min(greatest(lower(d.during), bin.day)) as span_from,
            max(least(upper(d.during), bin.day + interval '24 hours')) as span_to
        from balance_due as d
        cross join lateral generate_series(
            date_bin('24 hours', greatest(lower(d.during), first_hour), '2000-01-01 00:00+00'),
            least(upper(d.during), line) - interval '1 microsecond',
            interval '24 hours'
        ) as bin (day)
        where d.due_id = any(seen)
        group by bin.day
        order by bin.day
    loop
        perform store_balances(
            date_bin('1 hour', work.span_from, '2000-01-01 00:00+00'),
            date_bin('1 hour', work.span_to + interval '1 hour' - interval '1 microsecond', '2000-01-01 00:00+00'),
            work.vehicles
        );
    end loop;
    delete from balance_due where due_id = any(seen);

    -- The newest day that has anything first: it is asked for most.
    select
        d.due_id,
        greatest(lower(d.during), first_hour) as span_from,
        least(
            upper(d.during),
            line,
            coalesce(
                greatest(
                    (select max(m.hour) from meter_hourly_stored as m where m.hour < least(upper(d.during), line)),
                    (select max(v.hour) from vehicle_hourly_stored as v where v.hour < least(upper(d.during), line))
                ) + interval '1 hour',
                '-infinity'
            )
        ) as span_to
    into everybody
    from balance_due as d
    where d.vehicle_id is null
    order by d.due_id
    limit 1;
    if everybody.due_id is null then
        return seen is not null;
    end if;
    delete from balance_due where due_id = everybody.due_id;
    if everybody.span_from < everybody.span_to then
        day_from := greatest(
            everybody.span_from,
            date_bin('24 hours', everybody.span_to - interval '1 microsecond', '2000-01-01 00:00+00')
        );
        perform store_balances(date_bin('1 hour', day_from, '2000-01-01 00:00+00'), everybody.span_to);
        if everybody.span_from < day_from then
            insert into balance_due (during) values (tstzrange(everybody.span_from, day_from));
        end if;
    end if;
    return true;
end
$$;
comment on function fill_balances(integer) is
'Stores balances that are due: for so many log rows of vehicles, and one day of all; false where none is left';

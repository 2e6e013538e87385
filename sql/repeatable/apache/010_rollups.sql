-- Rollups on the Apache-2 edition: views that add the live tail to what the refresh has stored.

create or replace view meter_hourly as
select
    meter_id,
    hour,
    readings,
    kwh_ac,
    kwh_ac_max,
    voltage_sum,
    voltage_min,
    voltage_max
from meter_hourly_stored
where hour < (select refreshed_until from rollup_progress where stream = 'meter')
union all
select
    meter_id,
    time_bucket('1 hour', recorded_at) as hour,
    count(*) as readings,
    sum(kwh_consumed_ac) as kwh_ac,
    max(kwh_consumed_ac) as kwh_ac_max,
    sum(voltage) as voltage_sum,
    min(voltage) as voltage_min,
    max(voltage) as voltage_max
from meter_reading
where recorded_at >= (select refreshed_until from rollup_progress where stream = 'meter')
group by 1, 2;

create or replace view vehicle_hourly as
select
    vehicle_id,
    hour,
    readings,
    kwh_dc,
    kwh_dc_max,
    battery_temp_sum,
    battery_temp_min,
    battery_temp_max,
    soc_min,
    soc_max,
    soc_first,
    soc_last
from vehicle_hourly_stored
where hour < (select refreshed_until from rollup_progress where stream = 'vehicle')
union all
select
    vehicle_id,
    time_bucket('1 hour', recorded_at) as hour,
    count(*) as readings,
    sum(kwh_delivered_dc) as kwh_dc,
    max(kwh_delivered_dc) as kwh_dc_max,
    sum(battery_temp) as battery_temp_sum,
    min(battery_temp) as battery_temp_min,
    max(battery_temp) as battery_temp_max,
    min(soc) as soc_min,
    max(soc) as soc_max,
    first(soc, recorded_at) as soc_first,
    last(soc, recorded_at) as soc_last
from vehicle_reading
where recorded_at >= (select refreshed_until from rollup_progress where stream = 'vehicle')
group by 1, 2;

create or replace view meter_daily as
select
    meter_id,
    day,
    readings,
    kwh_ac,
    kwh_ac_max,
    voltage_sum,
    voltage_min,
    voltage_max
from meter_daily_stored
where day < (select time_bucket('1 day', refreshed_until) from rollup_progress where stream = 'meter')
union all
select
    meter_id,
    time_bucket('1 day', hour) as day,
    sum(readings)::bigint as readings,
    sum(kwh_ac) as kwh_ac,
    max(kwh_ac_max) as kwh_ac_max,
    sum(voltage_sum) as voltage_sum,
    min(voltage_min) as voltage_min,
    max(voltage_max) as voltage_max
from meter_hourly
where hour >= (select time_bucket('1 day', refreshed_until) from rollup_progress where stream = 'meter')
group by 1, 2;

create or replace view vehicle_daily as
select
    vehicle_id,
    day,
    readings,
    kwh_dc,
    kwh_dc_max,
    battery_temp_sum,
    battery_temp_min,
    battery_temp_max,
    soc_min,
    soc_max,
    soc_first,
    soc_last
from vehicle_daily_stored
where day < (select time_bucket('1 day', refreshed_until) from rollup_progress where stream = 'vehicle')
union all
select
    vehicle_id,
    time_bucket('1 day', hour) as day,
    sum(readings)::bigint as readings,
    sum(kwh_dc) as kwh_dc,
    max(kwh_dc_max) as kwh_dc_max,
    sum(battery_temp_sum) as battery_temp_sum,
    min(battery_temp_min) as battery_temp_min,
    max(battery_temp_max) as battery_temp_max,
    min(soc_min) as soc_min,
    max(soc_max) as soc_max,
    first(soc_first, hour) as soc_first,
    last(soc_last, hour) as soc_last
from vehicle_hourly
where hour >= (select time_bucket('1 day', refreshed_until) from rollup_progress where stream = 'vehicle')
group by 1, 2;

-- Replaces the hours [hour_from, hour_to) of a stream, and the days that they complete or belong to.
create or replace function store_rollup(wanted text, hour_from timestamptz, hour_to timestamptz)
returns void
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    day_from timestamptz;
    day_to timestamptz;
begin
    -- Days that lie before what is rolled up now; the last one is added when its last hour is.
    select time_bucket('1 day', hour_from), time_bucket('1 day', greatest(p.refreshed_until, hour_to))
    into day_from, day_to
    from rollup_progress as p
    where p.stream = wanted;
    day_to := least(day_to, time_bucket('1 day', hour_to - interval '1 hour') + interval '24 hours');
    if wanted = 'meter' then
        delete from meter_hourly_stored where hour >= hour_from and hour < hour_to;
        insert into meter_hourly_stored
        select
            r.meter_id, time_bucket('1 hour', r.recorded_at), count(*), sum(r.kwh_consumed_ac),
            max(r.kwh_consumed_ac), sum(r.voltage), min(r.voltage), max(r.voltage)
        from meter_reading as r
        where r.recorded_at >= hour_from and r.recorded_at < hour_to
        group by 1, 2
        order by 2, 1;
        delete from meter_daily_stored where day >= day_from and day < day_to;
        insert into meter_daily_stored
        select
            h.meter_id, time_bucket('1 day', h.hour), sum(h.readings), sum(h.kwh_ac),
            max(h.kwh_ac_max), sum(h.voltage_sum), min(h.voltage_min), max(h.voltage_max)
        from meter_hourly_stored as h
        where h.hour >= day_from and h.hour < day_to
        group by 1, 2
        order by 2, 1;
    else
        delete from vehicle_hourly_stored where hour >= hour_from and hour < hour_to;
        insert into vehicle_hourly_stored
        select
            r.vehicle_id, time_bucket('1 hour', r.recorded_at), count(*), sum(r.kwh_delivered_dc),
            max(r.kwh_delivered_dc), sum(r.battery_temp), min(r.battery_temp), max(r.battery_temp),
            min(r.soc), max(r.soc), first(r.soc, r.recorded_at), last(r.soc, r.recorded_at)
        from vehicle_reading as r
        where r.recorded_at >= hour_from and r.recorded_at < hour_to
        group by 1, 2
        order by 2, 1;
        delete from vehicle_daily_stored where day >= day_from and day < day_to;
        insert into vehicle_daily_stored
        select
            h.vehicle_id, time_bucket('1 day', h.hour), sum(h.readings), sum(h.kwh_dc),
            max(h.kwh_dc_max), sum(h.battery_temp_sum), min(h.battery_temp_min), max(h.battery_temp_max),
            min(h.soc_min), max(h.soc_max), first(h.soc_first, h.hour), last(h.soc_last, h.hour)
        from vehicle_hourly_stored as h
        where h.hour >= day_from and h.hour < day_to
        group by 1, 2
        order by 2, 1;
    end if;
end
$$;
comment on function store_rollup(text, timestamptz, timestamptz) is
'Rolls up the hours [from, to) of a stream anew, and the days that they belong to; a step of refresh_rollups';

create or replace procedure materialize_hours(wanted text, hour_from timestamptz, hour_to timestamptz)
language plpgsql
as $$
begin
    perform public.store_rollup(wanted, hour_from, hour_to);
end
$$;
comment on procedure materialize_hours (text, timestamptz, timestamptz) is
'Rolls up the hours [from, to) of a stream, in the transaction of its caller; a step of refresh_rollups';

create or replace function refresh_is_scheduled()
returns boolean
language sql
stable
set search_path = pg_catalog, public, pg_temp
as $$
    select false
$$;
comment on function refresh_is_scheduled() is
'Whether the database refreshes the rollups by itself; this edition has no jobs, so the service does it';

create or replace view rollup_health as
select
    stream,
    refreshed_until,
    refreshed_at,
    failed_at,
    failures,
    last_error
from rollup_progress;

comment on table meter_hourly_stored is
'Hours of meters that are rolled up, where rollup_progress and rollup_stale say so';
comment on table vehicle_hourly_stored is
'Hours of vehicles that are rolled up, where rollup_progress and rollup_stale say so';
comment on table meter_daily_stored is
'Days (UTC) of meters that are rolled up, where rollup_progress and rollup_stale say so';
comment on table vehicle_daily_stored is
'Days (UTC) of vehicles that are rolled up, where rollup_progress and rollup_stale say so';

grant execute on function store_rollup(text, timestamptz, timestamptz) to fleetwatt_service;
grant execute on procedure materialize_hours(text, timestamptz, timestamptz) to fleetwatt_service;
grant execute on function refresh_is_scheduled() to fleetwatt_service;

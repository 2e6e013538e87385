-- The head of the fleet's page: what the fleet does right now, and what it has drawn today.

-- name: overview_devices
-- How many devices there are; they report while their newest reading is at most 5 minutes old, and a vehicle charges
-- while that reading brought energy.
select
    now() as as_of,
    v.known as vehicles,
    v.reporting as vehicles_reporting,
    v.charging as vehicles_charging,
    m.known as meters,
    m.reporting as meters_reporting,
    greatest(v.newest, m.newest) as newest_reading
from (
    select
        count(*) as known,
        count(*) filter (where recorded_at >= now() - interval '5 minutes') as reporting,
        count(*) filter (where recorded_at >= now() - interval '5 minutes' and kwh_delivered_dc > 0) as charging,
        max(recorded_at) as newest
    from vehicle_state
) as v
cross join (
    select
        count(*) as known,
        count(*) filter (where recorded_at >= now() - interval '5 minutes') as reporting,
        max(recorded_at) as newest
    from meter_state
) as m;

-- name: overview_power
-- Energy of all readings of the last five minutes that are over and whose readings have had ten seconds to arrive.
-- The bound that says less is one by which TimescaleDB leaves out chunks before it plans for each of them.
with span as (
    select
        date_trunc('minute', now() - interval '10 seconds') - interval '5 minutes' as since,
        date_trunc('minute', now() - interval '10 seconds') as until
)

select
    extract(epoch from s.until - s.since)::float8 as seconds,
    (
        select coalesce(sum(r.kwh_consumed_ac), 0)
        from meter_reading as r
        where r.recorded_at >= s.since and r.recorded_at < s.until and r.recorded_at > now() - interval '7 minutes'
    ) as kwh_ac,
    (
        select coalesce(sum(r.kwh_delivered_dc), 0)
        from vehicle_reading as r
        where r.recorded_at >= s.since and r.recorded_at < s.until and r.recorded_at > now() - interval '7 minutes'
    ) as kwh_dc
from span as s;

-- name: overview_today
-- Energy of the fleet since the day of a time zone began.
select
    d.day_start as period_start,
    now() as period_end,
    coalesce(t.kwh_ac, 0) as kwh_ac,
    coalesce(t.kwh_dc, 0) as kwh_dc,
    coalesce(t.vehicle_readings, 0) as vehicle_readings
from (
    select max(s.moment) as day_start
    from local_starts(now(), now(), 'day', %(zone)s) as s (moment)
    where s.moment <= now()
) as d
left join lateral fleet_totals(array[d.day_start, now()]) as t on true;

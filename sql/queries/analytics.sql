-- What the read side runs. Hot state is one key look-up; energy comes from vehicle_performance.

-- name: meter_current
-- Latest state of one meter.
select meter_id, recorded_at, kwh_consumed_ac, voltage, updated_at
from meter_state
where meter_id = %(id)s;

-- name: vehicle_current
-- Latest state of one vehicle.
select vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp, updated_at
from vehicle_state
where vehicle_id = %(id)s;

-- name: meter_states
-- One page of the latest states, in key order after the last id of the page before.
select meter_id, recorded_at, kwh_consumed_ac, voltage, updated_at
from meter_state
where
    meter_id > %(after)s
    and (%(since)s::timestamptz is null or recorded_at >= %(since)s)
    and (%(before)s::timestamptz is null or recorded_at < %(before)s)
order by meter_id
limit %(page_size)s;

-- name: vehicle_states
-- One page of the latest states, in key order after the last id of the page before.
select vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp, updated_at
from vehicle_state
where
    vehicle_id > %(after)s
    and (%(since)s::timestamptz is null or recorded_at >= %(since)s)
    and (%(before)s::timestamptz is null or recorded_at < %(before)s)
    and (%(soc_below)s::float8 is null or soc < %(soc_below)s)
order by vehicle_id
limit %(page_size)s;

-- name: vehicle_performance
-- Energy summary of a vehicle over [from, to), and whether the vehicle has ever been heard of.
select
    p.kwh_ac,
    p.kwh_dc,
    p.battery_temp_sum,
    p.meter_readings,
    p.vehicle_readings,
    (
        p.vehicle_readings > 0
        or exists (select from vehicle_state where vehicle_id = %(id)s)
        or exists (select from charging_session where vehicle_id = %(id)s)
    ) as known
from vehicle_performance(%(id)s, %(window_from)s, %(window_to)s) as p;

-- name: fleet_worst
-- Vehicles with the lowest efficiency over [from, to), of those that drew enough AC energy to tell.
select
    s.vehicle_id,
    p.kwh_ac,
    p.kwh_dc,
    p.kwh_dc / p.kwh_ac as efficiency
from (
    select distinct c.vehicle_id
    from charging_session as c
    where c.during && tstzrange(%(window_from)s, %(window_to)s)
) as s
cross join lateral vehicle_performance(s.vehicle_id, %(window_from)s, %(window_to)s) as p
where p.kwh_ac >= %(least_kwh)s
order by efficiency, s.vehicle_id
limit %(page_size)s;

-- name: fleet_energy
-- Energy of the whole fleet over [from, to): the sum of its vehicles' summaries.
select
    coalesce(sum(p.kwh_ac), 0) as kwh_ac,
    coalesce(sum(p.kwh_dc), 0) as kwh_dc
from (
    select v.vehicle_id
    from vehicle_state as v
    union
    select c.vehicle_id
    from charging_session as c
    where c.during && tstzrange(%(window_from)s, %(window_to)s)
) as s
cross join lateral vehicle_performance(s.vehicle_id, %(window_from)s, %(window_to)s) as p;

-- name: device_counts
-- How many devices have ever reported, and when the newest reading of each kind was taken.
select
    (select count(*) from meter_state) as meters,
    (select count(*) from vehicle_state) as vehicles,
    (select max(recorded_at) from meter_state) as newest_meter,
    (select max(recorded_at) from vehicle_state) as newest_vehicle;

-- name: ingest_totals
-- Exact counts of everything that was ever stored, by kind and by source (mqtt, http, import).
select
    kind,
    split_part(writer, '/', 1) as source,
    sum(accepted)::bigint as accepted,
    sum(duplicates)::bigint as duplicates,
    sum(conflicts)::bigint as conflicts
from ingest_minute
group by kind, source;

-- name: ingest_recently
-- Rate and lag by source over the last full minute and the current one.
select
    split_part(writer, '/', 1) as source,
    (
        sum(accepted)
        / extract(epoch from now() - (date_trunc('minute', now()) - interval '1 minute'))
    )::float8 as accepted_per_s,
    sum(lag_s_sum) / nullif(sum(lag_s_count), 0) as lag_s_mean,
    max(lag_s_max) filter (where lag_s_count > 0) as lag_s_max
from ingest_minute
where minute >= date_trunc('minute', now()) - interval '1 minute'
group by source
order by source;

-- name: dead_letter_counts
-- Refusals by reason.
select code, count(*) as letters
from dead_letter
group by code
order by code;

-- name: storage
-- Bytes on disk of each hypertable, indexes included, and its number of chunks.
select
    h.hypertable_name as name,
    hypertable_size((quote_ident(h.hypertable_schema) || '.' || quote_ident(h.hypertable_name))::regclass) as bytes,
    h.num_chunks as chunks
from timescaledb_information.hypertables as h
where h.hypertable_schema = 'public'
order by name;

-- name: sessions_at
-- How many sessions with an end are under way at a moment.
select count(*) as charging
from charging_session
where during @> %(at)s::timestamptz and upper(during) is not null;

-- name: ping
-- Tells that the database answers.
select 1 as one;

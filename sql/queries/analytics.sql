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

-- name: finished_until
-- Up to where the hours of both streams are rolled up; null before the first refresh.
select nullif(min(p.refreshed_until), '-infinity') as finished_until
from rollup_progress as p;

-- name: fleet_by_vehicle
-- Energy of the whole fleet over [from, to), and in each row one of the vehicles with the lowest efficiency, of
-- those that drew enough AC energy to tell. One row without a vehicle when there is none.
with vehicle as materialized (
    select
        p.vehicle_id,
        p.kwh_ac,
        p.kwh_dc,
        p.meter_readings,
        p.vehicle_readings
    from fleet_performance(%(window_from)s, %(window_to)s) as p
)

select
    fleet.kwh_ac as fleet_kwh_ac,
    fleet.kwh_dc as fleet_kwh_dc,
    worst.*
from (
    select
        coalesce(sum(v.kwh_ac), 0) as kwh_ac,
        coalesce(sum(v.kwh_dc), 0) as kwh_dc
    from vehicle as v
) as fleet
left join lateral (
    select
        v.vehicle_id as device_id,
        v.kwh_ac,
        v.kwh_dc,
        v.meter_readings,
        v.vehicle_readings
    from vehicle as v
    where v.kwh_ac >= %(least_kwh)s and v.kwh_ac > 0
    order by v.kwh_dc / v.kwh_ac, v.vehicle_id
    limit %(page_size)s
) as worst on true;

-- name: fleet_by_meter
-- The same with meters, that is chargers: what arrived while a vehicle was connected to this meter alone.
with charger as materialized (
    select
        p.meter_id,
        sum(p.kwh_ac) as kwh_ac,
        sum(p.kwh_dc) as kwh_dc,
        sum(p.meter_readings)::bigint as meter_readings,
        sum(p.vehicle_readings)::bigint as vehicle_readings
    from pair_energy(%(window_from)s, %(window_to)s) as p
    group by p.meter_id
)

select
    fleet.kwh_ac as fleet_kwh_ac,
    fleet.kwh_dc as fleet_kwh_dc,
    worst.*
from (
    select
        coalesce(sum(v.kwh_ac), 0) as kwh_ac,
        coalesce(sum(v.kwh_dc), 0) as kwh_dc
    from fleet_performance(%(window_from)s, %(window_to)s) as v
) as fleet
left join lateral (
    select
        c.meter_id as device_id,
        c.kwh_ac,
        c.kwh_dc,
        c.meter_readings,
        c.vehicle_readings
    from charger as c
    where c.kwh_ac >= %(least_kwh)s and c.kwh_ac > 0
    order by c.kwh_dc / c.kwh_ac, c.meter_id
    limit %(page_size)s
) as worst on true;

-- name: fleet_by_time
-- Energy of the whole fleet, hour by hour or day by day of a time zone.
with edge as (
    select window_edges(%(window_from)s, %(window_to)s, %(width)s, %(zone)s) as edges
),

total as (
    select t.*
    from edge
    cross join lateral fleet_totals(edge.edges) as t
)

select
    edge.edges[n.place] as started_at,
    edge.edges[n.place + 1] as ended_at,
    coalesce(t.kwh_ac, 0) as kwh_ac,
    coalesce(t.kwh_dc, 0) as kwh_dc,
    coalesce(t.meter_readings, 0) as meter_readings,
    coalesce(t.vehicle_readings, 0) as vehicle_readings
from edge
cross join lateral generate_series(1, cardinality(edge.edges) - 1) as n (place)
left join total as t on n.place = t.place
order by n.place;

-- name: vehicle_by_time
-- Energy, battery temperature and state of charge of one vehicle, hour by hour or day by day of a time zone.
with edge as (
    select window_edges(%(window_from)s, %(window_to)s, %(width)s, %(zone)s) as edges
),

ac as (
    select
        b.place,
        sum(b.kwh) as kwh,
        sum(b.readings)::bigint as readings
    from edge
    cross join lateral billed(edge.edges, %(id)s) as b
    group by b.place
),

dc as (
    select d.*
    from edge
    cross join lateral delivered(edge.edges, %(id)s) as d
)

select
    edge.edges[n.place] as started_at,
    edge.edges[n.place + 1] as ended_at,
    coalesce(ac.kwh, 0) as kwh_ac,
    coalesce(ac.readings, 0) as meter_readings,
    coalesce(dc.kwh, 0) as kwh_dc,
    coalesce(dc.readings, 0) as vehicle_readings,
    dc.battery_temp_sum,
    dc.battery_temp_min,
    dc.battery_temp_max,
    dc.soc_min,
    dc.soc_max,
    dc.soc_first,
    dc.soc_last
from edge
cross join lateral generate_series(1, cardinality(edge.edges) - 1) as n (place)
left join ac on n.place = ac.place
left join dc on n.place = dc.place
order by n.place;

-- name: meter_by_time
-- Everything that one meter counted, its voltage, and AC and DC while a vehicle drew from it alone, hour by hour or day
-- by day of a time zone.
with edge as (
    select window_edges(%(window_from)s, %(window_to)s, %(width)s, %(zone)s) as edges
),

energy as (
    select c.*
    from edge
    cross join lateral charged(edge.edges, %(id)s) as c
),

metered as (
    select m.*
    from edge
    cross join lateral metered(edge.edges, %(id)s) as m
)

select
    edge.edges[n.place] as started_at,
    edge.edges[n.place + 1] as ended_at,
    coalesce(e.kwh_ac, 0) as kwh_ac,
    coalesce(e.meter_readings, 0) as meter_readings,
    coalesce(e.kwh_dc, 0) as kwh_dc,
    coalesce(e.vehicle_readings, 0) as vehicle_readings,
    coalesce(m.kwh, 0) as kwh_metered,
    m.voltage_sum / m.readings as voltage_mean,
    m.voltage_min,
    m.voltage_max
from edge
cross join lateral generate_series(1, cardinality(edge.edges) - 1) as n (place)
left join energy as e on n.place = e.place
left join metered as m on n.place = m.place
order by n.place;

-- name: vehicle_known
-- Whether a vehicle was ever heard of: it reported, or a session names it.
select
    exists (select from vehicle_state where vehicle_id = %(id)s)
    or exists (select from charging_session where vehicle_id = %(id)s) as known;

-- name: meter_known
-- Whether a meter was ever heard of: it reported, or a session names it.
select
    exists (select from meter_state where meter_id = %(id)s)
    or exists (select from charging_session where meter_id = %(id)s) as known;

-- name: rollup_freshness
-- How far the rollups reach, what waits for a refresh, and what went wrong.
select
    h.stream,
    nullif(h.refreshed_until, '-infinity') as refreshed_until,
    h.refreshed_at,
    h.failures,
    h.failed_at,
    h.last_error,
    (
        select count(distinct s.hour)
        from rollup_stale as s
        where s.stream = h.stream
    ) as stale_hours
from rollup_health as h
order by h.stream;

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
    sum(lag_s_sum) as lag_s_sum,
    sum(lag_s_count)::bigint as lag_s_count,
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
-- Bytes on disk of each hypertable, indexes included, and its number of chunks; what is behind a rollup has the
-- same name on both editions.
select
    coalesce(a.view_name || '_stored', h.hypertable_name) as name,
    hypertable_size((quote_ident(h.hypertable_schema) || '.' || quote_ident(h.hypertable_name))::regclass) as bytes,
    h.num_chunks as chunks
from timescaledb_information.hypertables as h
left join timescaledb_information.continuous_aggregates as a
    on
        h.hypertable_schema = a.materialization_hypertable_schema
        and h.hypertable_name = a.materialization_hypertable_name
where h.hypertable_schema = 'public' or a.view_schema = 'public'
order by name;

-- name: sessions_at
-- How many sessions with an end are under way at a moment.
select count(*) as charging
from charging_session
where during @> %(at)s::timestamptz and upper(during) is not null;

-- name: ping
-- Tells that the database answers.
select 1 as one;

-- name: log_position
-- Which database this is, and up to where its server's log goes: as it was flushed here or, on a replica, replayed.
-- Only a server that takes writes has a timeline of its own; it changes when another server takes over.
select
    c.system_identifier,
    (select d.oid::bigint from pg_database as d where d.datname = current_database()) as database_oid,
    r.in_recovery,
    case when not r.in_recovery then ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::integer end
        as timeline,
    (case when r.in_recovery then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end - '0/0')::bigint
        as position
from pg_control_system() as c
cross join (select pg_is_in_recovery() as in_recovery) as r;

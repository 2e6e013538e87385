-- What the writer runs. Arrays hold one batch, sorted by device and time, so that writers lock in one order.

-- name: insert_new_meter_readings
-- Stores what is not there yet; gives the places (from 1) of the readings that were there already.
with batch as (
    select
        b.id,
        b.recorded_at,
        b.kwh,
        b.voltage,
        b.place
    from unnest(
        %(ids)s::text[], %(times)s::timestamptz[], %(kwh)s::float8[], %(voltage)s::float8[]
    ) with ordinality as b (id, recorded_at, kwh, voltage, place)
),

stored as (
    insert into meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage)
    select
        batch.id,
        batch.recorded_at,
        batch.kwh,
        batch.voltage
    from batch
    order by batch.place
    on conflict do nothing
    returning meter_id, recorded_at
)

select batch.place
from batch
left join stored on batch.id = stored.meter_id and batch.recorded_at = stored.recorded_at
where stored.meter_id is null;

-- name: insert_new_vehicle_readings
-- Stores what is not there yet; gives the places (from 1) of the readings that were there already.
with batch as (
    select
        b.id,
        b.recorded_at,
        b.soc,
        b.kwh,
        b.battery_temp,
        b.place
    from unnest(
        %(ids)s::text[], %(times)s::timestamptz[],
        %(soc)s::float8[], %(kwh)s::float8[], %(battery_temp)s::float8[]
    ) with ordinality as b (id, recorded_at, soc, kwh, battery_temp, place)
),

stored as (
    insert into vehicle_reading (vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp)
    select
        batch.id,
        batch.recorded_at,
        batch.soc,
        batch.kwh,
        batch.battery_temp
    from batch
    order by batch.place
    on conflict do nothing
    returning vehicle_id, recorded_at
)

select batch.place
from batch
left join stored on batch.id = stored.vehicle_id and batch.recorded_at = stored.recorded_at
where stored.vehicle_id is null;

-- name: compare_meter_readings
-- Of the readings whose key is stored, gives the places (from 1) and whether the stored values differ.
-- The lateral look-up keeps it one index probe a reading, in the one chunk that can hold it.
select
    b.place,
    (stored.kwh_consumed_ac <> b.kwh or stored.voltage <> b.voltage) as differs
from
    unnest(
        %(ids)s::text[], %(times)s::timestamptz[], %(kwh)s::float8[], %(voltage)s::float8[]
    ) with ordinality as b (id, recorded_at, kwh, voltage, place)
cross join
    lateral (
        select
            r.kwh_consumed_ac,
            r.voltage
        from meter_reading as r
        where r.meter_id = b.id and r.recorded_at = b.recorded_at
        limit 1
    ) as stored;

-- name: compare_vehicle_readings
-- Of the readings whose key is stored, gives the places (from 1) and whether the stored values differ.
select
    b.place,
    (
        stored.soc <> b.soc or stored.kwh_delivered_dc <> b.kwh or stored.battery_temp <> b.battery_temp
    ) as differs
from
    unnest(
        %(ids)s::text[], %(times)s::timestamptz[],
        %(soc)s::float8[], %(kwh)s::float8[], %(battery_temp)s::float8[]
    ) with ordinality as b (id, recorded_at, soc, kwh, battery_temp, place)
cross join
    lateral (
        select
            r.soc,
            r.kwh_delivered_dc,
            r.battery_temp
        from vehicle_reading as r
        where r.vehicle_id = b.id and r.recorded_at = b.recorded_at
        limit 1
    ) as stored;

-- name: upsert_meter_state
-- Hot state from the newest reading of each meter in the batch; a late one never overwrites a newer one.
insert into meter_state as s (meter_id, recorded_at, kwh_consumed_ac, voltage)
select
    b.id,
    b.recorded_at,
    b.kwh,
    b.voltage
from
    unnest(
        %(ids)s::text[], %(times)s::timestamptz[], %(kwh)s::float8[], %(voltage)s::float8[]
    ) as b (id, recorded_at, kwh, voltage)
on conflict (meter_id) do update set
    recorded_at = excluded.recorded_at,
    kwh_consumed_ac = excluded.kwh_consumed_ac,
    voltage = excluded.voltage,
    updated_at = excluded.updated_at
where s.recorded_at < excluded.recorded_at;

-- name: upsert_vehicle_state
-- Hot state from the newest reading of each vehicle in the batch; a late one never overwrites a newer one.
insert into vehicle_state as s (vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp)
select
    b.id,
    b.recorded_at,
    b.soc,
    b.kwh,
    b.battery_temp
from
    unnest(
        %(ids)s::text[], %(times)s::timestamptz[],
        %(soc)s::float8[], %(kwh)s::float8[], %(battery_temp)s::float8[]
    ) as b (id, recorded_at, soc, kwh, battery_temp)
on conflict (vehicle_id) do update set
    recorded_at = excluded.recorded_at,
    soc = excluded.soc,
    kwh_delivered_dc = excluded.kwh_delivered_dc,
    battery_temp = excluded.battery_temp,
    updated_at = excluded.updated_at
where s.recorded_at < excluded.recorded_at;

-- name: insert_dead_letters
-- Keeps what was refused, with its reason.
insert into dead_letter (origin, kind, device_id, code, field, message, raw, raw_size)
select
    d.origin,
    d.kind,
    d.device_id,
    d.code,
    d.field,
    d.message,
    d.raw,
    d.raw_size
from unnest(
    %(origin)s::text[], %(kind)s::text[], %(device_id)s::text[], %(code)s::text[],
    %(field)s::text[], %(message)s::text[], %(raw)s::bytea[], %(raw_size)s::bigint[]
) as d (origin, kind, device_id, code, field, message, raw, raw_size);

-- name: count_ingest
-- Adds a batch to the counters of this writer's current minute.
insert into ingest_minute as i (
    minute, writer, kind, accepted, duplicates, conflicts, lag_s_count, lag_s_sum, lag_s_max
)
values (
    date_trunc('minute', now()), %(writer)s, %(kind)s, %(accepted)s, %(duplicates)s, %(conflicts)s,
    %(lag_s_count)s, %(lag_s_sum)s, %(lag_s_max)s
)
on conflict (minute, writer, kind) do update set
    accepted = i.accepted + excluded.accepted,
    duplicates = i.duplicates + excluded.duplicates,
    conflicts = i.conflicts + excluded.conflicts,
    lag_s_count = i.lag_s_count + excluded.lag_s_count,
    lag_s_sum = i.lag_s_sum + excluded.lag_s_sum,
    lag_s_max = greatest(i.lag_s_max, excluded.lag_s_max);

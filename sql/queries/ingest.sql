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
-- Gives the places (from 1) of the readings that are not stored as they are: new ones, and (differs) those whose
-- key is stored with other values. A replay, nearly all of which is stored already, gets a short answer.
-- The lateral look-up keeps it one index probe a reading, in the chunks that the bounds leave.
select
    b.place,
    stored.differs is not null as differs
from
    unnest(
        %(ids)s::text[], %(times)s::timestamptz[], %(kwh)s::float8[], %(voltage)s::float8[]
    ) with ordinality as b (id, recorded_at, kwh, voltage, place)
left join
    lateral (
        select r.kwh_consumed_ac <> b.kwh or r.voltage <> b.voltage as differs
        from meter_reading as r
        where
            r.meter_id = b.id and r.recorded_at = b.recorded_at
            and r.recorded_at between %(earliest)s and %(latest)s
        limit 1
    ) as stored
    on true
where stored.differs is distinct from false;

-- name: compare_vehicle_readings
-- Gives the places (from 1) of the readings that are not stored as they are; see compare_meter_readings.
select
    b.place,
    stored.differs is not null as differs
from
    unnest(
        %(ids)s::text[], %(times)s::timestamptz[],
        %(soc)s::float8[], %(kwh)s::float8[], %(battery_temp)s::float8[]
    ) with ordinality as b (id, recorded_at, soc, kwh, battery_temp, place)
left join
    lateral (
        select r.soc <> b.soc or r.kwh_delivered_dc <> b.kwh or r.battery_temp <> b.battery_temp as differs
        from vehicle_reading as r
        where
            r.vehicle_id = b.id and r.recorded_at = b.recorded_at
            and r.recorded_at between %(earliest)s and %(latest)s
        limit 1
    ) as stored
    on true
where stored.differs is distinct from false;

-- name: insert_dead_letters
-- Keeps what was refused, with its reason. A line of a file, import:<file>:<lines>, is not kept again while the same
-- bytes of a file of this name, refused for the same reason, wait or are dismissed: to import a file again adds
-- nothing. Gives the places of those that are known, from 1. Measured: a file of 300,000 lines, 5,455 of them refused,
-- imported again beside 300,000 letters of others takes 5 s, and 41 s without dead_letter_imported.
with refused as (
    select
        d.*,
        known.is_known
    from
        unnest(
            %(origin)s::text[], %(kind)s::text[], %(device_id)s::text[], %(code)s::text[],
            %(field)s::text[], %(message)s::text[], %(raw)s::bytea[], %(raw_size)s::bigint[]
        ) with ordinality as d (origin, kind, device_id, code, field, message, raw, raw_size, place)
    left join
        lateral (
            select true as is_known
            from dead_letter as k
            where
                starts_with(d.origin, 'import:')
                and starts_with(k.origin, 'import:')
                and k.raw = d.raw and k.raw_size = d.raw_size and k.code = d.code
                and rtrim(k.origin, '0123456789-') = rtrim(d.origin, '0123456789-')
                and (k.resolved_at is null or k.replay_error = 'dismissed')
            limit 1
        ) as known
        on true
),

kept as (
    insert into dead_letter (origin, kind, device_id, code, field, message, raw, raw_size)
    select
        r.origin,
        r.kind,
        r.device_id,
        r.code,
        r.field,
        r.message,
        r.raw,
        r.raw_size
    from refused as r
    where r.is_known is null
)

select r.place
from refused as r
where r.is_known;

-- name: finish_batch
-- Stores the readings of a small batch, all of them new, and adds the batch to the counters of this writer's
-- current minute: one statement, so that a small batch is one way to the server and back. What is large has
-- been copied by then.
-- Of two such inserts the last runs first, and its trigger too: meters before vehicles, as in all other ways, so
-- that two writers never wait in a circle; a test holds that.
with vehicles as (
    insert into vehicle_reading (vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp)
    select
        b.id,
        b.recorded_at,
        b.soc,
        b.kwh,
        b.battery_temp
    from unnest(
        %(vehicle_ids)s::text[], %(vehicle_times)s::timestamptz[],
        %(vehicle_soc)s::float8[], %(vehicle_kwh)s::float8[], %(vehicle_battery_temp)s::float8[]
    ) as b (id, recorded_at, soc, kwh, battery_temp)
),

meters as (
    insert into meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage)
    select
        b.id,
        b.recorded_at,
        b.kwh,
        b.voltage
    from unnest(
        %(meter_ids)s::text[], %(meter_times)s::timestamptz[], %(meter_kwh)s::float8[], %(meter_voltage)s::float8[]
    ) as b (id, recorded_at, kwh, voltage)
)

insert into ingest_minute as i (
    minute, writer, kind, accepted, duplicates, conflicts, lag_s_count, lag_s_sum, lag_s_max
)
select
    date_trunc('minute', now()),
    %(writer)s,
    b.kind,
    b.accepted,
    b.duplicates,
    b.conflicts,
    b.lag_s_count,
    b.lag_s_sum,
    b.lag_s_max
from
    unnest(
        %(kind)s::text[], %(accepted)s::bigint[], %(duplicates)s::bigint[], %(conflicts)s::bigint[],
        %(lag_s_count)s::bigint[], %(lag_s_sum)s::float8[], %(lag_s_max)s::float8[]
    ) as b (kind, accepted, duplicates, conflicts, lag_s_count, lag_s_sum, lag_s_max)
on conflict (minute, writer, kind) do update set
    accepted = i.accepted + excluded.accepted,
    duplicates = i.duplicates + excluded.duplicates,
    conflicts = i.conflicts + excluded.conflicts,
    lag_s_count = i.lag_s_count + excluded.lag_s_count,
    lag_s_sum = i.lag_s_sum + excluded.lag_s_sum,
    lag_s_max = greatest(i.lag_s_max, excluded.lag_s_max);

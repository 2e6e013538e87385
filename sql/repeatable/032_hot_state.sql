-- Hot state: one row a device, its newest reading, brought up by whatever adds history, in the same statement. The
-- service, an import through psql and a restore leave it right alike, and no reading is sent twice.
--
-- In a live fleet each reading of a batch is of another device, so this is an update of a row for each reading: a third
-- of what a batch costs the database. Devices that are known are therefore brought up in one walk along the index of
-- the state: `= any (array(...))` has it read the wanted ids in their order, and the merge join goes along. An upsert
-- looks each device up from the root, and locks its row before it updates it; it is kept for devices that are new.
--
-- The settings of both functions leave the planner this one plan. It costs what the batch has in devices, however
-- many there are, and takes rows in the order of ids, so that two writers do not wait for each other in a circle: all
-- known ones, then all new ones. One way is left to meet: a device becomes known between the two steps of a writer,
-- and another, to whom it is a known one already, holds it and waits for a device of the first step. The server ends
-- one of the two after a second. The service tries again; whoever copies by psql into a live fleet has to.

create or replace function keep_meter_state()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
set enable_nestloop = off
set enable_hashjoin = off
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    updated bigint;
begin
    with newest as materialized (
        select distinct on (t.meter_id)
            t.meter_id,
            t.recorded_at,
            t.kwh_consumed_ac,
            t.voltage
        from touched as t
        order by t.meter_id, t.recorded_at desc
    )

    update meter_state as s
    set
        recorded_at = n.recorded_at,
        kwh_consumed_ac = n.kwh_consumed_ac,
        voltage = n.voltage,
        updated_at = now()
    from newest as n
    where
        s.meter_id = n.meter_id
        and s.meter_id = any (array(select w.meter_id from newest as w))
        -- What comes late never takes the place of what is newer.
        and s.recorded_at < n.recorded_at;

    -- One row for each reading, or else for each device: all were known, and none was late.
    get diagnostics updated = row_count;
    if
        updated = (select count(*) from touched)
        or updated = (select count(*) from (select from touched as t group by t.meter_id) as d)
    then
        return null;
    end if;

    with newest as materialized (
        select distinct on (t.meter_id)
            t.meter_id,
            t.recorded_at,
            t.kwh_consumed_ac,
            t.voltage
        from touched as t
        order by t.meter_id, t.recorded_at desc
    )

    insert into meter_state as s (meter_id, recorded_at, kwh_consumed_ac, voltage)
    select
        n.meter_id,
        n.recorded_at,
        n.kwh_consumed_ac,
        n.voltage
    from newest as n
    left join meter_state as k
        on
            n.meter_id = k.meter_id
            and k.meter_id = any (array(select w.meter_id from newest as w))
            and n.recorded_at <= k.recorded_at
    where k.meter_id is null
    order by n.meter_id
    -- Another writer may have brought the device in the meantime.
    on conflict (meter_id) do update set
        recorded_at = excluded.recorded_at,
        kwh_consumed_ac = excluded.kwh_consumed_ac,
        voltage = excluded.voltage,
        updated_at = excluded.updated_at
    where s.recorded_at < excluded.recorded_at;
    return null;
end
$$;
comment on function keep_meter_state() is 'Brings meter_state up to the readings that a statement has added';

create or replace function keep_vehicle_state()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
set enable_nestloop = off
set enable_hashjoin = off
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
    updated bigint;
begin
    with newest as materialized (
        select distinct on (t.vehicle_id)
            t.vehicle_id,
            t.recorded_at,
            t.soc,
            t.kwh_delivered_dc,
            t.battery_temp
        from touched as t
        order by t.vehicle_id, t.recorded_at desc
    )

    update vehicle_state as s
    set
        recorded_at = n.recorded_at,
        soc = n.soc,
        kwh_delivered_dc = n.kwh_delivered_dc,
        battery_temp = n.battery_temp,
        updated_at = now()
    from newest as n
    where
        s.vehicle_id = n.vehicle_id
        and s.vehicle_id = any (array(select w.vehicle_id from newest as w))
        -- What comes late never takes the place of what is newer.
        and s.recorded_at < n.recorded_at;

    -- One row for each reading, or else for each device: all were known, and none was late.
    get diagnostics updated = row_count;
    if
        updated = (select count(*) from touched)
        or updated = (select count(*) from (select from touched as t group by t.vehicle_id) as d)
    then
        return null;
    end if;

    with newest as materialized (
        select distinct on (t.vehicle_id)
            t.vehicle_id,
            t.recorded_at,
            t.soc,
            t.kwh_delivered_dc,
            t.battery_temp
        from touched as t
        order by t.vehicle_id, t.recorded_at desc
    )

    insert into vehicle_state as s (vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp)
    select
        n.vehicle_id,
        n.recorded_at,
        n.soc,
        n.kwh_delivered_dc,
        n.battery_temp
    from newest as n
    left join vehicle_state as k
        on
            n.vehicle_id = k.vehicle_id
            and k.vehicle_id = any (array(select w.vehicle_id from newest as w))
            and n.recorded_at <= k.recorded_at
    where k.vehicle_id is null
    order by n.vehicle_id
    -- Another writer may have brought the device in the meantime.
    on conflict (vehicle_id) do update set
        recorded_at = excluded.recorded_at,
        soc = excluded.soc,
        kwh_delivered_dc = excluded.kwh_delivered_dc,
        battery_temp = excluded.battery_temp,
        updated_at = excluded.updated_at
    where s.recorded_at < excluded.recorded_at;
    return null;
end
$$;
comment on function keep_vehicle_state() is 'Brings vehicle_state up to the readings that a statement has added';

-- Triggers fire in the order of their names: this one after log_inserted_hours, which may wait at the barrier, so
-- that whoever waits there holds no state that a writer beyond it wants.
create or replace trigger newest_state
after insert on meter_reading referencing new table as touched
for each statement execute function keep_meter_state();

create or replace trigger newest_state
after insert on vehicle_reading referencing new table as touched
for each statement execute function keep_vehicle_state();

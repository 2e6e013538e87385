-- Hot state: one row a device, its newest reading, brought up by whatever adds history, in the same statement. The
-- service, an import through psql and a restore leave it right alike, and no reading is sent twice.

create or replace function keep_meter_state()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
begin
    -- In the order of ids, so that two writers never wait for each other in a circle.
    insert into meter_state as s (meter_id, recorded_at, kwh_consumed_ac, voltage)
    select distinct on (t.meter_id)
        t.meter_id,
        t.recorded_at,
        t.kwh_consumed_ac,
        t.voltage
    from touched as t
    order by t.meter_id, t.recorded_at desc
    on conflict (meter_id) do update set
        recorded_at = excluded.recorded_at,
        kwh_consumed_ac = excluded.kwh_consumed_ac,
        voltage = excluded.voltage,
        updated_at = excluded.updated_at
    -- What comes late never takes the place of what is newer.
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
as $$
begin
    insert into vehicle_state as s (vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp)
    select distinct on (t.vehicle_id)
        t.vehicle_id,
        t.recorded_at,
        t.soc,
        t.kwh_delivered_dc,
        t.battery_temp
    from touched as t
    order by t.vehicle_id, t.recorded_at desc
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

-- What the live stream runs. Commits are announced apart from the transactions that make them: a NOTIFY within one
-- would have all of them commit one after another.

-- name: announce_states
-- Tells the processes that hold streams that states may have changed. Where nobody listens it costs 0.15 ms and waits
-- for no disk; to look into pg_stat_activity first, for whether anybody does, takes twice as long.
notify fleetwatt_states;

-- name: listen_for_states
-- Has this connection told when states may have changed.
listen fleetwatt_states;

-- name: stream_position
-- The oldest transaction that may still be under way: what is not visible yet bears its number or a later one.
select pg_snapshot_xmin(pg_current_snapshot())::text as stream_position;

-- name: changed_meter_states
-- States whose transaction was under way, or had not begun, at a position; all of them where none is given. Reads the
-- whole table: an index would cost each commit more than this costs a look.
select meter_id, recorded_at, kwh_consumed_ac, voltage, updated_at
from meter_state
where
    %(stream_position)s::text is null
    or age(xmin) <= age(%(stream_position)s::text::xid8::xid);

-- name: changed_vehicle_states
-- The same of vehicles.
select vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp, updated_at
from vehicle_state
where
    %(stream_position)s::text is null
    or age(xmin) <= age(%(stream_position)s::text::xid8::xid);

-- name: changed_meter_states_of
-- The same of some meters, by their key.
select meter_id, recorded_at, kwh_consumed_ac, voltage, updated_at
from meter_state
where
    meter_id = any(%(ids)s)
    and (%(stream_position)s::text is null or age(xmin) <= age(%(stream_position)s::text::xid8::xid));

-- name: changed_vehicle_states_of
-- The same of some vehicles.
select vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp, updated_at
from vehicle_state
where
    vehicle_id = any(%(ids)s)
    and (%(stream_position)s::text is null or age(xmin) <= age(%(stream_position)s::text::xid8::xid));

-- What `fleetwatt seed` and the demo run.

-- name: insert_planned_sessions
-- Stores simulated charging sessions, in the order given (meter and time), so that two writers lock in one
-- order. Leaves out those that are there already and those whose meter is taken at that time.
insert into charging_session (session_id, vehicle_id, meter_id, during)
select
    s.session_id,
    s.vehicle_id,
    s.meter_id,
    tstzrange(s.started_at, s.ended_at, '[)') as during
from
    unnest(
        %(session_ids)s::text[], %(vehicle_ids)s::text[], %(meter_ids)s::text[],
        %(started)s::timestamptz[], %(ended)s::timestamptz[]
    ) with ordinality as s (session_id, vehicle_id, meter_id, started_at, ended_at, place)
order by s.place
on conflict do nothing;

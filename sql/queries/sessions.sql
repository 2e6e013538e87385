-- Charging sessions: which vehicle drew from which meter, and when.

-- name: name_source
-- Says for the rest of the transaction who changes sessions; the audit trail keeps it.
select set_config('fleetwatt.source', %(source)s, true);

-- name: add_session
-- Stores a session; no row when the id is taken, or the meter is at some time in that span. Unlike a plain
-- insert, this never deadlocks with another one that wants the meter.
insert into charging_session (session_id, vehicle_id, meter_id, during)
values (
    coalesce(%(session_id)s, gen_random_uuid()::text), %(vehicle_id)s, %(meter_id)s,
    tstzrange(%(started_at)s, %(ended_at)s, '[)')
)
on conflict do nothing
returning session_id, vehicle_id, meter_id, lower(during) as started_at, upper(during) as ended_at;

-- name: get_session
-- One session by its id.
select session_id, vehicle_id, meter_id, lower(during) as started_at, upper(during) as ended_at
from charging_session
where session_id = %(session_id)s;

-- name: overlapping_session
-- The session that keeps a meter busy at some time in a span, other than the one that is being changed.
select session_id, vehicle_id, meter_id, lower(during) as started_at, upper(during) as ended_at
from charging_session
where
    meter_id = %(meter_id)s
    and during && tstzrange(%(started_at)s, %(ended_at)s, '[)')
    and session_id is distinct from %(session_id)s
order by during
limit 1;

-- name: lock_session
-- One session by its id, kept from changing until the transaction ends.
select session_id, vehicle_id, meter_id, lower(during) as started_at, upper(during) as ended_at
from charging_session
where session_id = %(session_id)s
for update;

-- name: change_session
-- Ends or corrects a session; raises 23P01 when the meter is taken at some time in that span.
update charging_session
set
    vehicle_id = %(vehicle_id)s,
    meter_id = %(meter_id)s,
    during = tstzrange(%(started_at)s, %(ended_at)s, '[)'),
    updated_at = now()
where session_id = %(session_id)s;

-- name: session_changes
-- The audit trail of a session, oldest first.
select
    change_id,
    changed_at,
    action,
    source,
    vehicle_before,
    meter_before,
    started_before,
    ended_before,
    vehicle_after,
    meter_after,
    started_after,
    ended_after
from session_change
where session_id = %(session_id)s
order by change_id;

-- name: assign_meter
-- Makes a meter the vehicle's until further notice, or none; see the function for what it gives and raises.
select outcome, session_id, vehicle_id, meter_id, started_at, ended_at
from assign_meter(%(vehicle_id)s, %(meter_id)s, %(started_at)s);

-- name: assigned_meter
-- The vehicle's newest open session; without values when it has none, no row when nobody ever heard of it.
select
    s.session_id,
    s.meter_id,
    s.started_at
from (select) as known
left join lateral (
    select
        c.session_id,
        c.meter_id,
        lower(c.during) as started_at
    from charging_session as c
    where c.vehicle_id = %(vehicle_id)s and upper_inf(c.during)
    order by c.during desc, c.session_id desc
    limit 1
) as s on true
where
    s.session_id is not null
    or exists (select from charging_session as c where c.vehicle_id = %(vehicle_id)s)
    or exists (select from vehicle_state as v where v.vehicle_id = %(vehicle_id)s);

-- name: list_sessions
-- A page of sessions that touch a span, newest start first, after the last one of the page before.
select session_id, vehicle_id, meter_id, lower(during) as started_at, upper(during) as ended_at
from charging_session
where
    (%(vehicle_id)s::text is null or vehicle_id = %(vehicle_id)s)
    and (%(meter_id)s::text is null or meter_id = %(meter_id)s)
    and during && tstzrange(%(window_from)s, %(window_to)s, '[)')
    and (%(is_open)s::bool is null or %(is_open)s = upper_inf(during))
    -- No "or" here: only a plain comparison lets a page begin in the index where the last one ended.
    and (lower(during), session_id)
    < (coalesce(%(after_start)s::timestamptz, 'infinity'), coalesce(%(after_id)s::text, ''))
order by lower(during) desc, session_id desc
limit %(page_size)s;

-- name: import_sessions
-- Stores sessions in the order given (meter and time), so that two writers lock in one order and the earlier of
-- two that overlap is stored. Gives the ids of those that were not there yet and whose meter was free.
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
on conflict do nothing
returning session_id;

-- name: compare_sessions
-- Says what keeps sessions from being stored: the place (from 1) of each, whether the same is stored already
-- (null where its id is not), and the first session that takes the meter in its time, if one does.
select
    s.place,
    (
        c.vehicle_id = s.vehicle_id and c.meter_id = s.meter_id
        and c.during = tstzrange(s.started_at, s.ended_at, '[)')
    ) as same,
    other.session_id as other_id,
    other.vehicle_id as other_vehicle
from
    unnest(
        %(session_ids)s::text[], %(vehicle_ids)s::text[], %(meter_ids)s::text[],
        %(started)s::timestamptz[], %(ended)s::timestamptz[]
    ) with ordinality as s (session_id, vehicle_id, meter_id, started_at, ended_at, place)
left join charging_session as c on s.session_id = c.session_id
left join lateral (
    select
        o.session_id,
        o.vehicle_id
    from charging_session as o
    where
        o.meter_id = s.meter_id
        and o.during && tstzrange(s.started_at, s.ended_at, '[)')
        and o.session_id <> s.session_id
    order by o.during
    limit 1
) as other on true;

-- name: take_session_message
-- Uses a message about a session, or lets it wait, or keeps it as a dead letter; tells which.
select
    take_session_message(
        %(meter_id)s, %(session_id)s, %(vehicle_id)s, %(started_at)s, %(ended_at)s,
        %(message_origin)s, %(payload)s, %(payload_size)s
    ) as became;

-- name: refuse_session_payload
-- Keeps a payload that is no message about a session as a dead letter.
insert into dead_letter (origin, device_id, code, field, message, raw, raw_size)
values (
    %(message_origin)s, %(meter_id)s, %(refusal_code)s, %(refusal_field)s, %(refusal)s,
    %(payload)s, %(payload_size)s
)
returning 'refused' as became;

-- name: try_to_expire_messages
-- Takes the lock of the one process that looks through waiting messages, or not; it holds as long as the
-- connection, none of whose statements takes longer from now on.
select
    pg_try_advisory_lock(26221, 1) as taken,
    set_config('statement_timeout', %(timeout_ms)s::bigint::text, false) as timeout_ms;

-- name: stop_expiring_messages
-- Lets go of that lock at once, and not when the server notices that the connection is gone.
select pg_advisory_unlock(26221, 1);

-- name: meters_with_messages
-- Meters, in their order, some of whose messages wait, or are too old to be kept.
select
    meter_id,
    bool_or(ended_session is null) as some_wait,
    bool_or(received_at < now() - make_interval(secs => %(wait_s)s)) as some_are_old
from session_message
where
    meter_id > %(after)s
    and (ended_session is null or received_at < now() - make_interval(secs => %(wait_s)s))
group by meter_id
order by meter_id
limit %(page_size)s;

-- name: expire_session_messages
-- Gives up messages of a meter that have waited longer; tells how many.
select expire_session_messages(%(meter_id)s, make_interval(secs => %(wait_s)s)) as given_up;

-- name: settle_session_messages
-- Uses the waiting messages of a meter that fit by now.
select settle_session_messages(%(meter_id)s);

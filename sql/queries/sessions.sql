-- Charging sessions: which vehicle drew from which meter, and when.

-- name: add_session
-- Stores a session; raises 23P01 when the meter serves another vehicle then, 23505 when the id is taken.
insert into charging_session (session_id, vehicle_id, meter_id, during)
values (
    coalesce(%(session_id)s, gen_random_uuid()::text), %(vehicle_id)s, %(meter_id)s,
    tstzrange(%(started_at)s, %(ended_at)s, '[)')
)
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

-- name: change_session
-- Ends or corrects a session; fields that are not given stay as they are.
update charging_session
set
    vehicle_id = coalesce(%(vehicle_id)s, vehicle_id),
    meter_id = coalesce(%(meter_id)s, meter_id),
    during = tstzrange(
        coalesce(%(started_at)s, lower(during)),
        case when %(change_end)s then %(ended_at)s else upper(during) end,
        '[)'
    ),
    updated_at = now()
where session_id = %(session_id)s
returning session_id, vehicle_id, meter_id, lower(during) as started_at, upper(during) as ended_at;

-- name: list_sessions
-- A page of sessions that touch a span, newest start first, after the last one of the page before.
select session_id, vehicle_id, meter_id, lower(during) as started_at, upper(during) as ended_at
from charging_session
where
    (%(vehicle_id)s::text is null or vehicle_id = %(vehicle_id)s)
    and (%(meter_id)s::text is null or meter_id = %(meter_id)s)
    and during && tstzrange(%(window_from)s, %(window_to)s, '[)')
    and (%(is_open)s::bool is null or %(is_open)s = upper_inf(during))
    and (
        %(after_start)s::timestamptz is null
        or (lower(during), session_id) < (%(after_start)s, %(after_id)s)
    )
order by lower(during) desc, session_id desc
limit %(page_size)s;

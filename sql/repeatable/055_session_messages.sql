-- Sessions over MQTT: starts, ends and whole sessions of a meter, in whatever order they are handled.
-- A message that does not fit yet waits in session_message until others make it fit. Everything here runs
-- under a lock of the meter, taken by the three functions that the service calls: take, expire, settle.

-- Tells whether the end of a session was matched by time alone, so that a better match may replace it.
create or replace function session_end_is_a_guess(ended charging_session)
returns boolean
language sql
stable
set search_path = pg_catalog, public, pg_temp
as $$
    select exists (
        select from session_message as m
        where
            m.meter_id = ended.meter_id
            and m.ended_session = ended.session_id
            and m.session_id is null
            and m.ended_at = upper(ended.during)
    )
$$;

comment on function session_end_is_a_guess(charging_session) is
'Whether the end of a session came from an MQTT end that did not name the session';

-- Tells whether an end that names no session may end this one: it is open, or its end is a guess. A standing
-- assignment is not a charge that a charger could end.
create or replace function session_takes_any_end(target charging_session)
returns boolean
language sql
stable
set search_path = pg_catalog, public, pg_temp
as $$
    select case
        when upper_inf(target.during) then not exists (
            select from session_change as c
            where c.session_id = target.session_id and c.source = 'standing assignment' and c.action = 'started'
        )
        else session_end_is_a_guess(target)
    end
$$;

comment on function session_takes_any_end(charging_session) is
'Whether an MQTT end that names no session may end this one';

-- Ends a session. An end that names none belongs to the session that was open a moment before it. If that
-- session was closed later than this, by an end that was matched by time too, then that end was another
-- session's: this one takes its place, and it waits again. An end that names the session is certain: it takes
-- the place of any guess, and a guess that says the same is none any more.
create or replace function fit_session_end(wanted_meter text, wanted_session text, moment timestamptz)
returns session_verdict
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    target charging_session;
begin
    if wanted_session is not null then
        select * into target from charging_session where session_id = wanted_session for update;
    else
        select * into target from charging_session
        where meter_id = wanted_meter and during @> (moment - interval '1 microsecond')
        for update;
    end if;
    if target.session_id is null then
        return row ('waits', null, null, null, null)::session_verdict;
    elsif upper(target.during) = moment and target.meter_id = wanted_meter then
        if wanted_session is not null then
            delete from session_message as m
            where
                m.meter_id = wanted_meter
                and m.ended_session = wanted_session
                and m.session_id is null
                and m.ended_at = moment;
        end if;
        return row ('duplicate', null, null, null, null)::session_verdict;
    end if;
    if wanted_session is not null then
        -- Delivered again after a correction: the trail knows. An end that only another message displaced was
        -- a guess, and now it is named.
        if exists (
            select from session_change as c
            where
                c.session_id = wanted_session
                and c.meter_after = wanted_meter
                and c.ended_after = moment
                and exists (
                    select from session_change as later
                    where
                        later.session_id = wanted_session
                        and later.change_id > c.change_id
                        and later.source <> 'mqtt'
                )
        ) then
            return row ('duplicate', null, null, null, null)::session_verdict;
        elsif target.meter_id <> wanted_meter then
            return row (
                'refused', 'id_mismatch', 'sessionId',
                format('session %s is on meter %s', wanted_session, target.meter_id), null
            )::session_verdict;
        elsif moment <= lower(target.during) then
            return row (
                'refused', 'out_of_range', 'endedAt', '"endedAt" must lie after the start of the session', null
            )::session_verdict;
        elsif not upper_inf(target.during) and not session_end_is_a_guess(target) then
            return row (
                'refused', 'session_ended', 'endedAt',
                format('session %s ended at another time: correct it with PATCH', wanted_session), null
            )::session_verdict;
        end if;
    elsif not session_takes_any_end(target) then
        return row ('waits', null, null, null, null)::session_verdict;
    end if;
    begin
        update charging_session set during = tstzrange(lower(during), moment, '[)'), updated_at = now()
        where session_id = target.session_id;
    exception when exclusion_violation then
        -- A better end, but later than the guess: another session is in between, for now.
        return row ('waits', null, null, null, null)::session_verdict;
    end;
    update session_message set ended_session = null
    where
        meter_id = target.meter_id
        and ended_session = target.session_id
        and session_id is null
        and ended_at = upper(target.during);
    return row ('stored', null, null, null, target.session_id)::session_verdict;
end
$$;

comment on function fit_session_end(text, text, timestamptz) is
'Ends the session that is named, or that was open just before the moment; says what became of it';

-- Starts a session, or stores a whole one. A start takes the end that waits for it.
create or replace function fit_session_start(
    wanted_meter text, wanted_session text, wanted_vehicle text, moment timestamptz, finish timestamptz
)
returns session_verdict
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    known charging_session;
    waiting session_message;
begin
    select * into known from charging_session where session_id = wanted_session for update;
    if found then
        if (known.vehicle_id, known.meter_id, lower(known.during)) = (wanted_vehicle, wanted_meter, moment) then
            if finish is null then
                return row ('duplicate', null, null, null, null)::session_verdict;
            end if;
            return fit_session_end(wanted_meter, wanted_session, finish);
        end if;
        -- Delivered again after a correction: the trail knows.
        if exists (
            select from session_change as c
            where
                c.session_id = wanted_session
                and (c.vehicle_after, c.meter_after, c.started_after) = (wanted_vehicle, wanted_meter, moment)
                and (finish is null or c.ended_after = finish)
        ) then
            return row ('duplicate', null, null, null, null)::session_verdict;
        end if;
        return row (
            'refused', 'session_exists', 'sessionId',
            format('session %s exists with other values: change it with PATCH', wanted_session), null
        )::session_verdict;
    end if;
    if finish is null then
        select m.* into waiting from session_message as m
        where
            m.meter_id = wanted_meter
            and m.started_at is null
            and m.ended_session is null
            and m.ended_at > moment
            and (m.session_id = wanted_session or m.session_id is null)
        order by m.session_id nulls last, m.ended_at
        limit 1;
    end if;
    -- Unlike a plain insert, this never deadlocks with another one that wants the meter.
    insert into charging_session (session_id, vehicle_id, meter_id, during)
    values (
        wanted_session, wanted_vehicle, wanted_meter,
        tstzrange(moment, coalesce(finish, waiting.ended_at), '[)')
    )
    on conflict do nothing;
    if not found then
        return row ('waits', null, null, null, null)::session_verdict;
    end if;
    update session_message set ended_session = wanted_session where message_id = waiting.message_id;
    return row ('stored', null, null, null, null)::session_verdict;
end
$$;

comment on function fit_session_start(text, text, text, timestamptz, timestamptz) is
'Stores a session that starts at a moment, with its end if that is known or waits; says what became of it';

create or replace function fit_session_message(message session_message)
returns session_verdict
language sql
set search_path = pg_catalog, public, pg_temp
as $$
    select case
        when message.started_at is null
            then fit_session_end(message.meter_id, message.session_id, message.ended_at)
        else fit_session_start(
            message.meter_id, message.session_id, message.vehicle_id, message.started_at, message.ended_at
        )
    end
$$;

comment on function fit_session_message(session_message) is
'Uses a message about a session, if it fits by now; says what became of it';

-- Keeps a message that cannot be used as a dead letter.
create or replace function refuse_session_message(
    refused session_message, why_code text, why_field text, why text
)
returns void
language sql
set search_path = pg_catalog, public, pg_temp
as $$
    insert into dead_letter (origin, device_id, code, field, message, raw, raw_size)
    values (refused.origin, refused.meter_id, why_code, why_field, why, refused.raw, refused.raw_size)
$$;

comment on function refuse_session_message(session_message, text, text, text) is
'Keeps a message about a session that cannot be used as a dead letter';

-- Looks through the waiting messages of a meter until none of them fits any more. It ends: each round uses up
-- one of them, and what an end displaces is later, or gives way to one that names its session and stays. A
-- meter that is busy just now is looked through by whoever is at it.
create or replace function settle_session_messages(wanted_meter text)
returns void
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    waiting session_message;
    became session_verdict;
    progress boolean := true;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('meter ' || wanted_meter, 0)) then
        return;
    end if;
    perform set_config('fleetwatt.source', 'mqtt', true);
    while progress loop
        progress := false;
        for waiting in
            select m.* from session_message as m
            where m.meter_id = wanted_meter and m.ended_session is null
            order by coalesce(m.started_at, m.ended_at), m.message_id
        loop
            became := fit_session_message(waiting);
            continue when became.verdict = 'waits';
            if became.verdict = 'refused' then
                perform refuse_session_message(waiting, became.code, became.field, became.message);
            end if;
            if became.ended_session is not null and waiting.started_at is null then
                update session_message set ended_session = became.ended_session
                where message_id = waiting.message_id;
            else
                delete from session_message where message_id = waiting.message_id;
            end if;
            progress := true;
            exit;
        end loop;
    end loop;
end
$$;

comment on function settle_session_messages(text) is
'Uses the waiting messages of a meter that fit by now';

-- Takes one message: uses it, or lets it wait, or keeps it as a dead letter. The same message again changes
-- nothing. Gives stored, duplicate, waits or refused.
create or replace function take_session_message(
    wanted_meter text,
    wanted_session text,
    wanted_vehicle text,
    start_moment timestamptz,
    end_moment timestamptz,
    came_from text,
    payload bytea,
    payload_size bigint
)
returns text
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    taken session_message;
    became session_verdict;
begin
    perform pg_advisory_xact_lock(hashtextextended('meter ' || wanted_meter, 0));
    perform set_config('fleetwatt.source', 'mqtt', true);
    -- It waits at first, so that all that happens to messages happens in one way.
    insert into session_message (
        meter_id, session_id, vehicle_id, started_at, ended_at, origin, raw, raw_size
    )
    values (
        wanted_meter, wanted_session, wanted_vehicle, start_moment, end_moment, came_from, payload, payload_size
    )
    on conflict do nothing
    returning * into taken;
    if not found then
        return 'duplicate';
    end if;
    became := fit_session_message(taken);
    if became.verdict = 'refused' then
        perform refuse_session_message(taken, became.code, became.field, became.message);
    end if;
    if became.verdict = 'stored' and taken.started_at is null then
        update session_message set ended_session = became.ended_session where message_id = taken.message_id;
    elsif became.verdict <> 'waits' then
        delete from session_message where message_id = taken.message_id;
    end if;
    if became.verdict in ('stored', 'waits') then
        perform settle_session_messages(wanted_meter);
    end if;
    if became.verdict = 'waits' and not exists (
        select from session_message where message_id = taken.message_id and ended_session is null
    ) then
        return 'stored';
    end if;
    return became.verdict;
end
$$;

comment on function take_session_message(text, text, text, timestamptz, timestamptz, text, bytea, bigint) is
'Takes a message about a session of a meter: uses it, lets it wait, or keeps it as a dead letter';

-- Gives up messages of a meter that have waited too long, and forgets old ends that were used: from then on
-- nothing displaces them. At most a thousand at a time, so that it ends in time whatever has piled up. A meter
-- that is busy just now comes next time.
create or replace function expire_session_messages(wanted_meter text, longest interval)
returns bigint
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    old session_message;
    taken_by text;
    given_up bigint := 0;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('meter ' || wanted_meter, 0)) then
        return 0;
    end if;
    for old in
        select m.* from session_message as m
        where m.meter_id = wanted_meter and m.received_at < now() - longest
        order by m.message_id
        limit 1000
    loop
        delete from session_message where message_id = old.message_id;
        continue when old.ended_session is not null;
        given_up := given_up + 1;
        if old.started_at is null then
            perform refuse_session_message(
                old, 'no_open_session', 'endedAt',
                'no session that this could end was open then, and no start of one came in time'
            );
            continue;
        end if;
        select s.session_id into taken_by from charging_session as s
        where s.meter_id = wanted_meter and s.during && tstzrange(old.started_at, old.ended_at, '[)')
        order by s.during
        limit 1;
        perform refuse_session_message(
            old, 'session_overlap', 'meterId',
            case
                when taken_by is null then 'the meter was taken in that time by another session for too long'
                else format('the meter is taken in that time by session %s', taken_by)
            end
        );
    end loop;
    return given_up;
end
$$;

comment on function expire_session_messages(text, interval) is
'Makes dead letters of messages of a meter that waited too long, a thousand at most; gives how many';

grant execute on function session_end_is_a_guess(charging_session) to fleetwatt_service;
grant execute on function session_takes_any_end(charging_session) to fleetwatt_service;
grant execute on function fit_session_end(text, text, timestamptz) to fleetwatt_service;
grant execute on function fit_session_start(text, text, text, timestamptz, timestamptz) to fleetwatt_service;
grant execute on function fit_session_message(session_message) to fleetwatt_service;
grant execute on function refuse_session_message(session_message, text, text, text) to fleetwatt_service;
grant execute on function settle_session_messages(text) to fleetwatt_service;
grant execute on function take_session_message(text, text, text, timestamptz, timestamptz, text, bytea, bigint)
to fleetwatt_service;
grant execute on function expire_session_messages(text, interval) to fleetwatt_service;

-- The audit trail of charging sessions, and what came over MQTT before it could be used. Runs once.

set local lock_timeout = '10s';
set local statement_timeout = '10min';

set local role fleetwatt_owner;

create table session_change (
    change_id bigint generated always as identity primary key,
    session_id text collate "C" not null,
    changed_at timestamptz not null default clock_timestamp(),
    action text not null check (
        action in ('started', 'recorded', 'ended', 'reopened', 'corrected', 'deleted')
    ),
    source text not null,
    vehicle_before text collate "C",
    meter_before text collate "C",
    started_before timestamptz,
    ended_before timestamptz,
    vehicle_after text collate "C",
    meter_after text collate "C",
    started_after timestamptz,
    ended_after timestamptz,
    changed_by xid8 not null default pg_current_xact_id()
);
create index session_change_session on session_change (session_id, change_id);
create index session_change_transaction on session_change (changed_by);
comment on table session_change is
'Audit trail: each change of a charging session, written by a trigger of charging_session and by nothing else';
comment on column session_change.change_id is 'Running number';
comment on column session_change.session_id is 'The session that was changed';
comment on column session_change.changed_at is 'When it was changed';
comment on column session_change.action is
'started (open), recorded (with its end), ended, reopened, corrected (anything else), deleted';
comment on column session_change.source is
'Who changed it: http, mqtt, import, seed, cli, standing assignment; sql when nobody says (fleetwatt.source)';
comment on column session_change.vehicle_before is 'The vehicle before; null for a new session, like all before';
comment on column session_change.meter_before is 'The meter before';
comment on column session_change.started_before is 'The start before';
comment on column session_change.ended_before is 'The end before; null also while the session was open';
comment on column session_change.vehicle_after is 'The vehicle since; null for a deleted session, like all after';
comment on column session_change.meter_after is 'The meter since';
comment on column session_change.started_after is 'The start since';
comment on column session_change.ended_after is 'The end since; null also while the session is open';
comment on column session_change.changed_by is
'The transaction that changed it: running numbers are not committed in their order, and this tells what is new';

-- The list of all sessions is newest first, and a page begins where the last one ended.
-- A migration is one transaction, so not concurrently; sessions are few beside readings.
-- squawk-ignore require-concurrent-index-creation
create index charging_session_newest on charging_session (lower(during) desc, session_id desc);

-- Not every message can be used when it comes: workers share the load, so an end may be handled before its
-- start. Ends that were matched by time alone stay a while too: an earlier end may turn up and be the right one.
create table session_message (
    message_id bigint generated always as identity primary key,
    meter_id text collate "C" not null,
    session_id text collate "C",
    vehicle_id text collate "C",
    started_at timestamptz,
    ended_at timestamptz,
    ended_session text collate "C",
    received_at timestamptz not null default now(),
    origin text not null,
    raw bytea not null,
    raw_size bigint not null,
    constraint session_message_is_a_start_or_an_end check (
        (vehicle_id is null) = (started_at is null) and (started_at is not null or ended_at is not null)
    ),
    constraint session_message_once unique nulls not distinct (
        meter_id, session_id, vehicle_id, started_at, ended_at
    )
);
create index session_message_received on session_message (received_at);
comment on table session_message is
'MQTT messages about sessions that wait for others, and ends that were matched by time, for a while';
comment on column session_message.message_id is 'Running number';
comment on column session_message.meter_id is 'The meter, from the topic';
comment on column session_message.session_id is 'The session; null for an end that names none';
comment on column session_message.vehicle_id is 'The vehicle of a start; null for an end';
comment on column session_message.started_at is 'When the session started; null for an end';
comment on column session_message.ended_at is 'When the session ended; null for a start';
comment on column session_message.ended_session is 'The session that this end closed; null while the message waits';
comment on column session_message.received_at is 'When it was received';
comment on column session_message.origin is 'Where it came from: mqtt:<topic>';
comment on column session_message.raw is 'The payload as it was received, cut off at FLEETWATT_DEAD_LETTER_MAX_BYTES';
comment on column session_message.raw_size is 'Size of the whole payload in bytes, also where raw was cut off';

create type session_verdict as (verdict text, code text, field text, message text, ended_session text);
comment on type session_verdict is
'What became of a message: stored, duplicate, waits, or refused and why; and the session that an end closed';

-- The trail is read by the service and written by the trigger alone; a session's id and birth never change.
grant select on session_change to fleetwatt_service;
grant select, insert, update, delete on session_message to fleetwatt_service;
revoke update on charging_session from fleetwatt_service;
grant update (vehicle_id, meter_id, during, updated_at) on charging_session to fleetwatt_service;

reset role;

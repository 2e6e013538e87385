-- What meters counted in the hours that sessions cover only in part, and which sessions are to be looked through
-- for such hours. Runs once.

set local lock_timeout = '10s';
set local statement_timeout = '10min';

set local role fleetwatt_owner;

create table session_edge (
    hour timestamptz not null,
    meter_id text collate "C" not null,
    part_from timestamptz not null,
    part_to timestamptz not null,
    kwh_ac double precision not null,
    readings bigint not null,
    primary key (hour, meter_id, part_from, part_to)
);
comment on table session_edge is
'Rollup of parts of hours: those that a session covers at its start or end; as good as the hour''s own rollup';
comment on column session_edge.hour is 'Start of the hour, UTC';
comment on column session_edge.meter_id is 'The meter''s id';
comment on column session_edge.part_from is 'Start of the part, included';
comment on column session_edge.part_to is 'End of the part, excluded';
comment on column session_edge.kwh_ac is 'AC energy that the meter counted in the part, kWh; 0 without readings';
comment on column session_edge.readings is 'Readings of the meter in the part';

create table session_edge_due (
    due_id bigint generated always as identity primary key,
    session_id text collate "C" not null
);
comment on table session_edge_due is
'Append-only log of sessions that came or changed, until a refresh has looked which of their edge hours are over';
comment on column session_edge_due.due_id is 'Running number; a refresh deletes exactly those that it saw';
comment on column session_edge_due.session_id is 'The session';

-- Newest first: these are asked for most.
insert into session_edge_due (session_id)
select s.session_id
from charging_session as s
order by lower(s.during) desc;

-- Answers over the fleet, and the refresh of an hour, want the sessions of a span, whosever they are.
-- A migration is one transaction, so not concurrently; sessions are few beside readings.
-- squawk-ignore require-concurrent-index-creation
create index charging_session_during on charging_session using gist (during);

grant select on session_edge to fleetwatt_service;

reset role;

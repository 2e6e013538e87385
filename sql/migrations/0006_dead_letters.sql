-- Dead letters can be tried again, and found by what was wrong with them. Runs once.

set local lock_timeout = '10s';
set local statement_timeout = '10min';
set local role fleetwatt_owner;

alter table dead_letter add column resolved_at timestamptz;
alter table dead_letter add column replayed_at timestamptz;
alter table dead_letter add column replays bigint not null default 0;
alter table dead_letter add column replay_error text;
comment on column dead_letter.resolved_at is 'When a replay stored it, or found it stored; null: it is still refused';
comment on column dead_letter.replayed_at is 'When it was last tried again';
comment on column dead_letter.replays is 'How often it was tried again';
comment on column dead_letter.replay_error is 'Why the last try was refused too, in words';

-- Writers of dead letters wait for moments only: the table is small beside the history.
-- squawk-ignore require-concurrent-index-creation
create index dead_letter_code on dead_letter (code, dead_letter_id);
-- squawk-ignore require-concurrent-index-creation
create index dead_letter_device on dead_letter (device_id, dead_letter_id) where device_id is not null;
-- squawk-ignore require-concurrent-index-creation
create index dead_letter_waiting on dead_letter (dead_letter_id) where resolved_at is null;
-- squawk-ignore require-concurrent-index-creation
create index dead_letter_resolved on dead_letter (dead_letter_id) where resolved_at is not null;

-- A replay notes what came of it; what was refused, and why at first, stays as it was.
grant update (resolved_at, replayed_at, replays, replay_error) on dead_letter to fleetwatt_service;
-- Room of letters that were pruned is used again only once it was vacuumed: a flood does not wait for autovacuum.
-- (Executed as text: the linter does not know PostgreSQL 17's word.)
do $$
begin
    execute 'grant maintain on dead_letter to fleetwatt_service';
end
$$;

reset role;

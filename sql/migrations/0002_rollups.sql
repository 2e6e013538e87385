-- Rollups: what has been rolled up, which hours late readings touched, and the settings that SQL works by.
-- The rollups themselves differ by edition: see community/ and apache/ beside this file.

set local lock_timeout = '10s';
set local statement_timeout = '10min';

set local role fleetwatt_owner;

-- From here on each function is granted to whom it is meant for.
alter default privileges revoke execute on routines from public;

create table rollup_progress (
    stream text collate "C" primary key check (stream in ('meter', 'vehicle')),
    logging_from timestamptz not null default '-infinity',
    refreshed_until timestamptz not null default '-infinity',
    refreshed_at timestamptz,
    refreshed_hours bigint not null default 0,
    kept_hours bigint not null default 0,
    failed_at timestamptz,
    failures bigint not null default 0,
    last_error text,
    constraint rollup_progress_logs_what_is_rolled_up check (refreshed_until <= logging_from)
) with (fillfactor = 50);
comment on table rollup_progress is 'How far each stream is rolled up; one row a stream';
comment on column rollup_progress.stream is 'meter or vehicle';
comment on column rollup_progress.logging_from is
'Writers log readings of hours before this in rollup_stale; never before refreshed_until';
comment on column rollup_progress.refreshed_until is
'Every hour before this is rolled up, except those in rollup_stale';
comment on column rollup_progress.refreshed_at is 'When a refresh last came to its end';
comment on column rollup_progress.refreshed_hours is 'Hours rolled up so far, repeats counted';
comment on column rollup_progress.kept_hours is
'Stale hours that were left as they are, since raw rows that they were made of have been dropped';
comment on column rollup_progress.failed_at is 'When a refresh last failed';
comment on column rollup_progress.failures is 'Refreshes that failed so far';
comment on column rollup_progress.last_error is 'What the last failure said';
insert into rollup_progress (stream) values ('meter'), ('vehicle');

create table rollup_stale (
    stale_id bigint generated always as identity primary key,
    stream text collate "C" not null check (stream in ('meter', 'vehicle')),
    hour timestamptz not null,
    logged_at timestamptz not null default now()
);
create index rollup_stale_hour on rollup_stale (stream, hour);
comment on table rollup_stale is
'Append-only log of the hours that readings touched after they could have been rolled up';
comment on column rollup_stale.stale_id is
'Running number; a refresh deletes exactly those that it saw before it began';
comment on column rollup_stale.stream is 'meter or vehicle';
comment on column rollup_stale.hour is 'The hour that the readings fell into';
comment on column rollup_stale.logged_at is 'Start of the transaction that stored the readings';

create table rollup_chunk (
    stream text collate "C" not null check (stream in ('meter', 'vehicle')),
    chunk_name text collate "C" not null,
    range_start timestamptz not null,
    range_end timestamptz not null,
    primary key (stream, chunk_name)
);
comment on table rollup_chunk is
'Chunks of raw rows that hours were rolled up from; where one has been dropped, the rollups stay as they are';
comment on column rollup_chunk.stream is 'meter or vehicle';
comment on column rollup_chunk.chunk_name is 'The chunk''s name with its schema, which is never used again';
comment on column rollup_chunk.range_start is 'Start of the chunk''s time, included';
comment on column rollup_chunk.range_end is 'End of the chunk''s time, excluded';

create table engine_setting (
    name text collate "C" primary key,
    value double precision not null,
    updated_at timestamptz not null default now()
);
comment on table engine_setting is
'Settings that the database itself works by, written by the service at its start; one that is missing has its default';
comment on column engine_setting.name is 'The setting FLEETWATT_<NAME>, in lower case';
comment on column engine_setting.value is 'Its value';
comment on column engine_setting.updated_at is 'When it last changed';

-- A refresh reads an hour of all devices. Rows arrive in the order of time, so a block-range index finds an
-- hour among a day's rows at next to no cost for ingest; see docs/decisions.md. Hypertables cannot build an
-- index concurrently.
-- squawk-ignore require-concurrent-index-creation
create index meter_reading_recorded_at on meter_reading
using brin (recorded_at) with (pages_per_range = 32, autosummarize = on);
-- squawk-ignore require-concurrent-index-creation
create index vehicle_reading_recorded_at on vehicle_reading
using brin (recorded_at) with (pages_per_range = 32, autosummarize = on);

grant select on rollup_progress, rollup_stale, engine_setting to fleetwatt_service;

reset role;

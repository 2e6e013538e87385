-- How long readings and rollups are kept, and in which form: what the settings asked for when the database was last
-- migrated. Runs once.

set local lock_timeout = '10s';
set local statement_timeout = '10min';

set local role fleetwatt_owner;

create table lifecycle (
    only_row boolean primary key default true check (only_row),
    chunk_hours bigint not null default 24 check (chunk_hours between 1 and 8784),
    columnstore_after_days bigint not null default 0 check (columnstore_after_days >= 0),
    raw_retention_days bigint not null default 0 check (raw_retention_days >= 0),
    rollup_retention_days bigint not null default 0 check (rollup_retention_days >= 0),
    applied_at timestamptz not null default now(),
    ran_at timestamptz,
    dropped_chunks bigint not null default 0,
    failed_at timestamptz,
    failures bigint not null default 0,
    last_error text,
    constraint lifecycle_rollups_outlive_readings check (
        rollup_retention_days = 0
        or (raw_retention_days > 0 and rollup_retention_days >= raw_retention_days)
    )
) with (fillfactor = 50);
comment on table lifecycle is
'How long data are kept and in which form, one row; only the owner changes it, by "fleetwatt migrate"';
comment on column lifecycle.only_row is 'There is one row';
comment on column lifecycle.chunk_hours is 'Length of new chunks of raw readings, hours';
comment on column lifecycle.columnstore_after_days is
'Raw chunks of this age, days, move to the columnstore, where the edition has one; 0: none';
comment on column lifecycle.raw_retention_days is 'Raw chunks of this age, days, are dropped once rolled up; 0: none';
comment on column lifecycle.rollup_retention_days is 'Chunks of rollups of this age, days, are dropped; 0: none';
comment on column lifecycle.applied_at is 'When one of these last changed';
comment on column lifecycle.ran_at is 'When what is too old was last looked for, to the end';
comment on column lifecycle.dropped_chunks is 'Chunks dropped so far';
comment on column lifecycle.failed_at is 'When the service last failed at it; where a job does it, its books tell';
comment on column lifecycle.failures is 'How often the service failed at it';
comment on column lifecycle.last_error is 'What the last failure said';
insert into lifecycle default values;

grant select on lifecycle to fleetwatt_service;

reset role;

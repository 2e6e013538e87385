-- The log of hours that were touched after they could have been rolled up: it lets the refresh miss nothing.
--
-- Writers and refresh agree by an advisory lock (1718383735, 1), "the barrier". A statement that touches history
-- takes it shared, reads up to where hours may be rolled up (logging_from), and logs the hours before that which it
-- touched; it keeps the lock until its transaction ends. A refresh takes it alone for the moment in which it moves
-- logging_from: every transaction that read the old value has committed by then, every later one logs by the new
-- one. So when hours are rolled up, each reading of theirs is either visible or will be logged, and at any moment
-- and in one snapshot this holds: an hour before refreshed_until that is not in rollup_stale is rolled up exactly.

-- Takes the barrier and tells the line, before which touched hours are to be logged.
create or replace function stale_before(wanted text)
returns timestamptz
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
begin
    perform pg_advisory_xact_lock_shared(1718383735, 1);
    if current_setting('transaction_isolation') <> 'read committed' then
        -- Its snapshot is older than the lock. What is logged too soon waits until its hour is closed.
        return 'infinity';
    end if;
    -- A statement of its own: its snapshot is taken when the lock is held.
    return (select p.logging_from from rollup_progress as p where p.stream = wanted);
end
$$;
comment on function stale_before(text) is
'Takes the barrier for the rest of the transaction; hours before the moment that it gives may be rolled up already';

-- Fires once a statement, whoever runs it: the service, psql, a restore. Rows of the open hour, nearly all there
-- are, cost a look at the earliest of them.
create or replace function log_stale_hours()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    line timestamptz := stale_before(tg_argv[0]);
begin
    if (select min(t.recorded_at) from touched as t) < line then
        insert into rollup_stale (stream, hour)
        select distinct tg_argv[0], time_bucket('1 hour', t.recorded_at)
        from touched as t
        where t.recorded_at < line;
    end if;
    return null;
end
$$;
comment on function log_stale_hours() is
'Logs the hours that a statement touched and that may be rolled up already; see the barrier in 030_stale_hours.sql';

-- A reading that an owner deletes by hand. Row by row, since the columnstore goes with no trigger that sees all
-- deleted rows at once. What the same transaction has just logged is not logged again.
create or replace function log_deleted_hour()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    touched_hour timestamptz := time_bucket('1 hour', old.recorded_at);
    mark text := format('%s %s %s', tg_argv[0], extract(epoch from touched_hour), pg_current_xact_id());
begin
    if current_setting('fleetwatt.logged_hour', true) = mark then
        return null;
    end if;
    if old.recorded_at < stale_before(tg_argv[0]) then
        insert into rollup_stale (stream, hour) values (tg_argv[0], touched_hour);
    end if;
    -- Undone with the log row where a savepoint is rolled back.
    perform set_config('fleetwatt.logged_hour', mark, true);
    return null;
end
$$;
comment on function log_deleted_hour() is
'Logs the hour of a deleted reading if it may be rolled up already; see the barrier in 030_stale_hours.sql';

-- Readings are never changed by the service. Where an owner mends history by hand, the rollups follow.
create or replace trigger log_inserted_hours
after insert on meter_reading referencing new table as touched
for each statement execute function log_stale_hours('meter');

create or replace trigger log_deleted_hours
after delete on meter_reading
for each row execute function log_deleted_hour('meter');

create or replace trigger log_hours_before_update
after update on meter_reading referencing old table as touched
for each statement execute function log_stale_hours('meter');

create or replace trigger log_hours_after_update
after update on meter_reading referencing new table as touched
for each statement execute function log_stale_hours('meter');

create or replace trigger log_inserted_hours
after insert on vehicle_reading referencing new table as touched
for each statement execute function log_stale_hours('vehicle');

create or replace trigger log_deleted_hours
after delete on vehicle_reading
for each row execute function log_deleted_hour('vehicle');

create or replace trigger log_hours_before_update
after update on vehicle_reading referencing old table as touched
for each statement execute function log_stale_hours('vehicle');

create or replace trigger log_hours_after_update
after update on vehicle_reading referencing new table as touched
for each statement execute function log_stale_hours('vehicle');

-- What becomes of data as they age. Nothing is dropped that was not asked for, and no raw row before what it says is
-- rolled up: so this does what TimescaleDB's own retention policy does, but looks first. `lifecycle` says how long data
-- are kept. Only the owner can change that: whoever has the service's login can have dropped what is due, and no more.

-- Whether all that raw rows of a chunk tell is rolled up: its hours, the parts of hours that sessions cover, balances.
create or replace function is_rolled_up(wanted text, chunk_from timestamptz, chunk_to timestamptz)
returns boolean
language sql
stable
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    select
        exists (select from rollup_progress as p where p.stream = wanted and p.refreshed_until >= chunk_to)
        and not exists (
            select from rollup_stale as s
            where s.stream = wanted and s.hour >= chunk_from and s.hour < chunk_to
        )
        and not exists (
            select
            from session_edge_due as d
            inner join charging_session as s on d.session_id = s.session_id
            where
                (lower(s.during) >= chunk_from and lower(s.during) < chunk_to)
                or (upper(s.during) > chunk_from and upper(s.during) < chunk_to)
        )
        and not exists (select from balance_due as b where b.during && tstzrange(chunk_from, chunk_to))
$$;
comment on function is_rolled_up(text, timestamptz, timestamptz) is
'Whether all that raw rows of a stream in [from, to) tell is rolled up, so that they may be dropped';

-- Chunks of rollups: of tables that hold them, and of what is behind continuous aggregates.
create or replace function rollup_chunks()
returns table (relation text, chunk text, range_from timestamptz, range_to timestamptz)
language sql
stable
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    select
        coalesce(a.view_name, c.hypertable_name)::text,
        format('%I.%I', c.chunk_schema, c.chunk_name),
        c.range_start,
        c.range_end
    from timescaledb_information.chunks as c
    left join timescaledb_information.continuous_aggregates as a
        on
            c.hypertable_schema = a.materialization_hypertable_schema
            and c.hypertable_name = a.materialization_hypertable_name
            and a.view_schema = 'public'
    where
        a.view_name in ('meter_hourly', 'vehicle_hourly', 'meter_daily', 'vehicle_daily')
        or c.hypertable_name in (
            'meter_hourly_stored', 'vehicle_hourly_stored', 'meter_daily_stored', 'vehicle_daily_stored',
            'balance_hourly', 'balance_daily'
        )
$$;
comment on function rollup_chunks() is 'Chunks of hourly and daily rollups and balances, with the times they hold';

-- Chunks that are too old by these numbers of days (0: none is). Rollups never go before the raw rows that they are
-- made of: a late reading would have its hour, and its day from a part of the hours, rolled up anew. Hours, in chunks
-- of fewer days, stay until the days that they are part of are gone: an answer takes whole days from the ones, and what
-- is left at both ends of its window and of sessions from the others.
create or replace function expired_chunks(raw_days bigint, rollup_days bigint)
returns table (
    relation text, stream text, chunk text, range_from timestamptz, range_to timestamptz, may_go boolean
)
language sql
stable
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    with raw as (
        select
            c.hypertable_name::text as relation,
            split_part(c.hypertable_name, '_', 1) as stream,
            format('%I.%I', c.chunk_schema, c.chunk_name) as chunk,
            c.range_start,
            c.range_end
        from timescaledb_information.chunks as c
        where c.hypertable_schema = 'public' and c.hypertable_name in ('meter_reading', 'vehicle_reading')
    ),

    rolled as (
        select r.relation, r.chunk, r.range_from, r.range_to, max(d.range_to) as days_to
        from rollup_chunks() as r
        left join rollup_chunks() as d
            on
                r.relation not like '%daily%' and d.relation like '%daily%'
                and r.range_from < d.range_to and r.range_to > d.range_from
        group by r.relation, r.chunk, r.range_from, r.range_to
    )

    select raw.relation, raw.stream, raw.chunk, raw.range_start, raw.range_end,
        is_rolled_up(raw.stream, raw.range_start, raw.range_end)
    from raw
    where raw_days > 0 and raw.range_end <= now() - raw_days * interval '24 hours'
    union all
    select rolled.relation, null, rolled.chunk, rolled.range_from, rolled.range_to,
        rolled.range_to <= coalesce((select min(raw.range_start) from raw), 'infinity')
        and rolled.days_to is null
    from rolled
    where
        rollup_days > 0
        and greatest(rolled.range_to, rolled.days_to) <= now() - rollup_days * interval '24 hours'
    order by 4, 1
$$;
comment on function expired_chunks(bigint, bigint) is
'Chunks of readings and rollups that are too old by these numbers of days, and whether they may go now';

-- Drops one chunk that is due. Whoever writes into it has to commit first, and nobody can begin to: what is asked then
-- holds until it is gone. Nobody waits for long behind a question that reads the chunk.
create or replace function drop_expired_chunk()
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
set lock_timeout = '2s'
as $$
declare
    due record;
begin
    if not pg_try_advisory_xact_lock(26223, 1) then
        return false;
    end if;
    for due in
        select e.relation, e.stream, e.chunk, e.range_from, e.range_to
        from lifecycle as l
        cross join lateral expired_chunks(l.raw_retention_days, l.rollup_retention_days) as e
        where e.may_go
    loop
        begin
            execute format('lock table %s in access exclusive mode', due.chunk);
            if due.stream is null or is_rolled_up(due.stream, due.range_from, due.range_to) then
                perform drop_chunks(
                    format('public.%I', due.relation)::regclass,
                    older_than => due.range_to, newer_than => due.range_from
                );
                update lifecycle set dropped_chunks = dropped_chunks + 1;
                return true;
            end if;
        exception
            when lock_not_available or undefined_table then
                -- In use, or gone meanwhile: its turn comes again.
                continue;
        end;
    end loop;
    return false;
end
$$;
comment on function drop_expired_chunk() is
'Drops one chunk that lifecycle says is too old and that is rolled up; false where none is left that can go now';

-- What is not a chunk: rolled-up parts of hours go with the rollups of their hours.
create or replace function finish_expiry()
returns void
language sql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    delete from session_edge as e
    using lifecycle as l
    where
        l.rollup_retention_days > 0
        and e.hour < now() - l.rollup_retention_days * interval '24 hours'
        and e.hour < coalesce(
            least(
                (
                    select min(c.range_start)
                    from timescaledb_information.chunks as c
                    where c.hypertable_schema = 'public' and c.hypertable_name = 'meter_reading'
                ),
                (select min(r.range_from) from rollup_chunks() as r)
            ),
            'infinity'
        );
    update lifecycle set ran_at = clock_timestamp();
$$;
comment on function finish_expiry() is
'Last step of drop_expired: deletes parts of hours whose rollups are too old, and notes the time';

-- It commits as it goes, so it names everything in full instead of pinning its search_path.
create or replace procedure drop_expired(job_id integer default null, config jsonb default null)
language plpgsql
as $$
begin
    while public.drop_expired_chunk() loop
        commit;
    end loop;
    perform public.finish_expiry();
end
$$;
comment on procedure drop_expired (integer, jsonb) is
'Drops what lifecycle says is too old, chunk by chunk; commits as it goes, one at a time';

create or replace function note_expiry_failure(reason text)
returns void
language sql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    update lifecycle set failures = failures + 1, failed_at = clock_timestamp(), last_error = left(reason, 1000)
$$;
comment on function note_expiry_failure(text) is 'Notes that the service failed to drop what is too old';

-- Takes the settings over: the length of new chunks, and jobs of the database where it has any.
create or replace function apply_lifecycle(
    wanted_chunk_hours bigint, wanted_columnstore_days bigint, wanted_raw_days bigint, wanted_rollup_days bigint
)
returns boolean
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    changed boolean;
    raw text;
begin
    -- Two that migrate at once have their turns.
    perform from lifecycle for update;
    update lifecycle
    set
        chunk_hours = wanted_chunk_hours,
        columnstore_after_days = wanted_columnstore_days,
        raw_retention_days = wanted_raw_days,
        rollup_retention_days = wanted_rollup_days,
        applied_at = now()
    where
        (chunk_hours, columnstore_after_days, raw_retention_days, rollup_retention_days)
        is distinct from (wanted_chunk_hours, wanted_columnstore_days, wanted_raw_days, wanted_rollup_days);
    changed := found;
    for raw in
        select d.hypertable_name
        from timescaledb_information.dimensions as d
        where
            d.hypertable_schema = 'public' and d.hypertable_name in ('meter_reading', 'vehicle_reading')
            and d.time_interval <> wanted_chunk_hours * interval '1 hour'
    loop
        perform set_chunk_time_interval(
            format('public.%I', raw)::regclass, wanted_chunk_hours * interval '1 hour'
        );
        changed := true;
    end loop;
    return schedule_lifecycle() or changed;
end
$$;
comment on function apply_lifecycle(bigint, bigint, bigint, bigint) is
'Takes over how long data are kept and in which form; tells whether that changed anything. The owner''s';

-- What a look over the whole engine has to read.
grant select on alembic_version to fleetwatt_service;
grant execute on function expired_chunks(bigint, bigint) to fleetwatt_service;

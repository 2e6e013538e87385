-- The refresh of the rollups: finished hours and exactly the stale ones. 030_stale_hours.sql says why none is missed.

-- Moves logging_from to the end of the last hour that is over and has had time to settle. Whoever waits for the
-- barrier holds up the writers behind it, so it waits for moments only, again and again: one writer that stands
-- still between its last statement and its commit must not bring all the others to a stop.
create or replace function close_hours()
returns void
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
set lock_timeout = '200ms'
as $$
begin
    for attempt in 1..30 loop
        begin
            perform pg_advisory_xact_lock(1718383735, 1);
            update rollup_progress
            set logging_from = settled.until
            from (
                select time_bucket('1 hour', now() - setting('rollup_settle_s', 120) * interval '1 second') as until
            ) as settled
            where rollup_progress.logging_from < settled.until;
            return;
        exception
            when lock_not_available then
                perform pg_sleep(random());
        end;
    end loop;
    raise exception 'a writer has been standing still before its commit for half a minute: finished hours cannot be closed'
    using errcode = 'lock_not_available', hint = 'look for application_name "fleetwatt write" in pg_stat_activity';
end
$$;
comment on function close_hours() is
'First step of refresh_rollups: from here on, writers log what they add to finished hours';

-- Notes which chunks a stretch of hours is rolled up from.
create or replace function note_chunks(wanted text, hour_from timestamptz, hour_to timestamptz)
returns void
language sql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    insert into rollup_chunk (stream, chunk_name, range_start, range_end)
    select wanted, format('%I.%I', c.chunk_schema, c.chunk_name), c.range_start, c.range_end
    from timescaledb_information.chunks as c
    where
        c.hypertable_schema = 'public' and c.hypertable_name = wanted || '_reading'
        and c.range_start < hour_to and c.range_end > hour_from
    on conflict do nothing
$$;
comment on function note_chunks(text, timestamptz, timestamptz) is
'Notes the chunks that the hours [from, to) of a stream are rolled up from; a step of refresh_rollups';

-- Whether raw rows that a stretch of hours was rolled up from have been dropped: rolling up what came late since
-- would erase the rollup. Chunks are dropped whole, and a late reading makes a new one of another name.
create or replace function raw_is_gone(wanted text, hour_from timestamptz, hour_to timestamptz)
returns boolean
language sql
stable
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    select exists (
        select
        from rollup_chunk as r
        where
            r.stream = wanted and r.range_start < hour_to and r.range_end > hour_from
            and to_regclass(r.chunk_name) is null
    )
$$;
comment on function raw_is_gone(text, timestamptz, timestamptz) is
'Whether raw rows behind the rolled-up hours [from, to) have been dropped, so that these must stay as they are';

-- What there is to roll up, in runs of at most a day: new hours in the order of time, chunk by chunk, so that
-- years without data cost nothing; then the stale ones, each with the log rows that are seen now.
create or replace function rollup_work(wanted text)
returns table (hour_from timestamptz, hour_to timestamptz, stale_ids bigint[])
language sql
stable
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    with progress as (
        select p.refreshed_until, p.logging_from
        from rollup_progress as p
        where p.stream = wanted
    ),

    new as (
        select
            greatest(d.day, progress.refreshed_until) as hour_from,
            least(d.day + interval '24 hours', progress.logging_from) as hour_to
        from progress
        cross join lateral (
            select days.day
            from timescaledb_information.chunks as c
            cross join lateral generate_series(
                time_bucket('1 day', c.range_start), c.range_end - interval '1 microsecond', interval '24 hours'
            ) as days (day)
            where c.hypertable_schema = 'public' and c.hypertable_name = wanted || '_reading'
            union
            -- The day that is rolled up in part must be finished, whatever became of its raw rows.
            select time_bucket('1 day', progress.refreshed_until)
            where isfinite(progress.refreshed_until)
        ) as d
        where d.day < progress.logging_from and d.day + interval '24 hours' > progress.refreshed_until
    ),

    stale as (
        select
            s.hour,
            s.gone,
            array_agg(s.stale_id) as ids,
            -- Hours that follow each other share this value, if all of them have their raw rows, or none.
            s.hour - row_number() over (partition by s.gone order by s.hour) * interval '1 hour' as run
        from (
            select r.hour, r.stale_id, raw_is_gone(wanted, r.hour, r.hour + interval '1 hour') as gone
            from rollup_stale as r
            cross join progress
            where r.stream = wanted and r.hour < progress.logging_from
            offset 0
        ) as s
        group by s.hour, s.gone
    )

    select work.hour_from, work.hour_to, work.stale_ids
    from (
        select 1 as place, new.hour_from, new.hour_to, '{}'::bigint[] as stale_ids
        from new
        union all
        select 2, progress.logging_from, progress.logging_from, '{}'
        from progress
        where progress.refreshed_until < progress.logging_from
        union all
        select 3, min(stale.hour), max(stale.hour) + interval '1 hour', array_agg(id.stale_id)
        from stale
        cross join lateral unnest(stale.ids) as id (stale_id)
        group by stale.run, stale.gone, time_bucket('1 day', stale.hour)
    ) as work
    order by work.place, work.hour_from
$$;
comment on function rollup_work(text) is
'Runs of hours [from, to) of a stream that are to be rolled up, and the log rows that each run settles';

-- After a run: log rows that were seen before it began are settled, and the rolled-up part grows.
create or replace function finish_rollup(
    wanted text, hour_from timestamptz, hour_to timestamptz, seen bigint[], kept boolean
)
returns void
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    hours bigint := extract(epoch from hour_to - hour_from)::bigint / 3600;
begin
    delete from rollup_stale where stale_id = any(seen);
    -- Hours that are passed over have no reading of this stream, but perhaps of the other one: balances are owed for them.
    insert into balance_due (during)
    select tstzrange(p.refreshed_until, hour_from)
    from rollup_progress as p
    where p.stream = wanted and p.refreshed_until < hour_from;
    update rollup_progress as p
    set
        refreshed_until = greatest(p.refreshed_until, hour_to),
        refreshed_hours = p.refreshed_hours + case when kept then 0 else hours end,
        kept_hours = p.kept_hours + case when kept then hours else 0 end
    where p.stream = wanted;
end
$$;
comment on function finish_rollup(text, timestamptz, timestamptz, bigint[], boolean) is
'Last step of a run of refresh_rollups: settles the log rows that it saw and moves refreshed_until';

create or replace function note_refresh()
returns void
language sql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    update rollup_progress set refreshed_at = clock_timestamp()
$$;
comment on function note_refresh() is 'Notes that a refresh came to its end';

create or replace function note_refresh_failure(reason text)
returns void
language sql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    update rollup_progress
    set failures = failures + 1, failed_at = clock_timestamp(), last_error = left(reason, 1000)
$$;
comment on function note_refresh_failure(text) is 'Notes that a refresh failed, and what it said';

-- Rolls up what is finished and what is stale. Whoever schedules it, only one runs at a time. It commits as it
-- goes, so it names everything in full instead of pinning its search_path, and cannot be called in a transaction.
create or replace procedure refresh_rollups(job_id integer default null, config jsonb default null)
language plpgsql
as $$
declare
    wanted text;
    run record;
begin
    -- A session's lock outlives a refresh that failed or was cancelled, and is counted: what this session still
    -- holds of it would keep out every other one for as long as it lives.
    while exists (
        select from pg_catalog.pg_locks as l
        where
            l.locktype = 'advisory' and l.pid = pg_catalog.pg_backend_pid() and l.granted
            and l.classid = 1718383735 and l.objid = 2
    ) loop
        perform pg_catalog.pg_advisory_unlock(1718383735, 2);
    end loop;
    if not pg_catalog.pg_try_advisory_lock(1718383735, 2) then
        return;
    end if;
    perform public.close_hours();
    commit;
    foreach wanted in array array['meter', 'vehicle'] loop
        -- The first commit makes PostgreSQL fetch all runs: those of this moment.
        for run in select * from public.rollup_work(wanted) loop
            call public.refresh_run(wanted, run.hour_from, run.hour_to, run.stale_ids);
        end loop;
    end loop;
    -- Bites, and not all of many at once: new hours come first.
    for bite in 1..20 loop
        exit when not public.fill_session_edges(5000);
        commit;
    end loop;
    for bite in 1..20 loop
        exit when not public.fill_balances(5000);
        commit;
    end loop;
    perform public.note_refresh();
    commit;
    perform public.evaluate_alerts();
    commit;
    perform pg_catalog.pg_advisory_unlock(1718383735, 2);
end
$$;
comment on procedure refresh_rollups (integer, jsonb) is
'Rolls up finished hours and exactly the stale ones, then evaluates alerts; commits, one at a time';

-- One run. Stale hours whose raw rows are gone keep the rollup they have.
create or replace procedure refresh_run(
    wanted text, hour_from timestamptz, hour_to timestamptz, stale_ids bigint[]
)
language plpgsql
as $$
declare
    kept boolean := false;
begin
    if pg_catalog.cardinality(stale_ids) > 0 then
        kept := public.raw_is_gone(wanted, hour_from, hour_to);
    end if;
    if hour_from < hour_to and not kept then
        perform public.note_chunks(wanted, hour_from, hour_to);
        call public.materialize_hours(wanted, hour_from, hour_to);
    end if;
    -- After the last commit of the lines above: with what settles the hours, or not at all.
    if wanted = 'meter' and hour_from < hour_to and not kept then
        perform public.store_session_edges(hour_from, hour_to);
    end if;
    perform public.finish_rollup(wanted, hour_from, hour_to, stale_ids, kept);
    if hour_from < hour_to and not kept then
        perform public.store_balances(hour_from, hour_to);
    end if;
    commit;
end
$$;
comment on procedure refresh_run (text, timestamptz, timestamptz, bigint []) is
'Rolls up one run of hours and settles its log rows; commits; a step of refresh_rollups';

-- Answers ask that, too.
grant execute on function raw_is_gone(text, timestamptz, timestamptz) to fleetwatt_service;

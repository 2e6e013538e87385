-- On this edition jobs of the database see to what ages: TimescaleDB's own for the columnstore, ours for what is
-- dropped.

create or replace function schedule_lifecycle()
returns boolean
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    wanted lifecycle;
    changed boolean := false;
    stream text;
    raw regclass;
    job bigint;
    after interval;
begin
    select * into wanted from lifecycle;
    foreach stream in array array['meter', 'vehicle'] loop
        raw := format('public.%I', stream || '_reading')::regclass;
        select j.job_id, (j.config ->> 'compress_after')::interval
        into job, after
        from timescaledb_information.jobs as j
        where j.proc_name = 'policy_compression' and j.hypertable_schema = 'public'
            and j.hypertable_name = stream || '_reading';
        if job is not null and after is distinct from wanted.columnstore_after_days * interval '1 day' then
            call remove_columnstore_policy(raw);
            changed := true;
            job := null;
        end if;
        if wanted.columnstore_after_days > 0 and job is null then
            -- A device's readings together, in the order of time: questions and late readings open only theirs.
            if not (
                select h.compression_enabled
                from timescaledb_information.hypertables as h
                where h.hypertable_schema = 'public' and h.hypertable_name = stream || '_reading'
            ) then
                execute format(
                    'alter table %s set (timescaledb.enable_columnstore, '
                    'timescaledb.segmentby = %L, timescaledb.orderby = %L)',
                    raw, stream || '_id', 'recorded_at'
                );
            end if;
            call add_columnstore_policy(raw, after => wanted.columnstore_after_days * interval '1 day');
            changed := true;
        end if;
    end loop;
    select j.job_id into job
    from timescaledb_information.jobs as j
    where j.proc_schema = 'public' and j.proc_name = 'drop_expired';
    if wanted.raw_retention_days > 0 and job is null then
        perform alter_job(
            add_job('public.drop_expired', interval '1 hour'), retry_period => interval '10 minutes'
        );
        changed := true;
    elsif wanted.raw_retention_days = 0 and job is not null then
        perform delete_job(job::integer);
        changed := true;
    end if;
    return changed;
end
$$;
comment on function schedule_lifecycle() is
'Makes the jobs of the database those that lifecycle asks for; tells whether any changed; a step of apply_lifecycle';

create or replace function database_jobs()
returns table (
    job_id integer, job text, hypertable text, scheduled boolean, config jsonb,
    last_run_status text, failures bigint, last_error text
)
language sql
stable
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    select
        j.job_id,
        j.proc_name::text,
        j.hypertable_name::text,
        j.scheduled,
        j.config,
        s.last_run_status,
        s.total_failures,
        (
            select e.err_message
            from timescaledb_information.job_errors as e
            where e.job_id = j.job_id
            order by e.finish_time desc
            limit 1
        )
    from timescaledb_information.jobs as j
    left join timescaledb_information.job_stats as s on j.job_id = s.job_id
    where
        (j.proc_schema = 'public' and j.proc_name in ('refresh_rollups', 'drop_expired'))
        or j.hypertable_schema = 'public'
    order by j.job_id
$$;
comment on function database_jobs() is 'Jobs that the database runs for the engine, and how their last runs went';

grant execute on function database_jobs() to fleetwatt_service;
-- Where the edition was another before.
revoke execute on function drop_expired_chunk(), finish_expiry(), note_expiry_failure(text) from fleetwatt_service;
revoke execute on procedure drop_expired(integer, jsonb) from fleetwatt_service;

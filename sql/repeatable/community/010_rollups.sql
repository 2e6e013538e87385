-- Rollups on the Community edition: what continuous aggregates hold, and the job that refreshes them.

-- The view of a real-time aggregate adds the live tail. What it holds without that tail is in a hypertable that
-- TimescaleDB names; answers take it from there, since they read the tail from the raw rows in any case.
do $$
declare
    rollup record;
begin
    for rollup in
        select
            view_name,
            materialization_hypertable_schema as folder,
            materialization_hypertable_name as name
        from timescaledb_information.continuous_aggregates
        where
            view_schema = 'public'
            and view_name in ('meter_hourly', 'vehicle_hourly', 'meter_daily', 'vehicle_daily')
    loop
        execute format(
            'create or replace view public.%I as select %s from %I.%I',
            rollup.view_name || '_stored',
            (
                select string_agg(quote_ident(attname), ', ' order by attnum)
                from pg_catalog.pg_attribute
                where attrelid = format('public.%I', rollup.view_name)::regclass and attnum > 0
            ),
            rollup.folder, rollup.name
        );
    end loop;
end
$$;

create or replace procedure materialize_hours(wanted text, hour_from timestamptz, hour_to timestamptz)
language plpgsql
as $$
declare
    day_from timestamptz;
    day_to timestamptz;
begin
    -- Days that lie before what is rolled up now; the last one follows its last hour.
    select
        public.time_bucket('1 day', hour_from),
        public.time_bucket('1 day', greatest(p.refreshed_until, hour_to))
    into day_from, day_to
    from public.rollup_progress as p
    where p.stream = wanted;
    day_to := least(day_to, public.time_bucket('1 day', hour_to - interval '1 hour') + interval '24 hours');
    -- A refresh commits before it does its work, not after. So commit in between: only then does the refresh of the
    -- days find in TimescaleDB's log which hours have changed.
    if wanted = 'meter' then
        call public.refresh_continuous_aggregate('public.meter_hourly', hour_from, hour_to);
        commit;
        if day_from < day_to then
            call public.refresh_continuous_aggregate('public.meter_daily', day_from, day_to);
        end if;
    else
        call public.refresh_continuous_aggregate('public.vehicle_hourly', hour_from, hour_to);
        commit;
        if day_from < day_to then
            call public.refresh_continuous_aggregate('public.vehicle_daily', day_from, day_to);
        end if;
    end if;
end
$$;
comment on procedure materialize_hours (text, timestamptz, timestamptz) is
'Rolls up the hours [from, to) of a stream and the days that they complete; commits; a step of refresh_rollups';

create or replace function refresh_is_scheduled()
returns boolean
language sql
stable
set search_path = pg_catalog, public, pg_temp
as $$
    select true
$$;
comment on function refresh_is_scheduled() is
'Whether the database refreshes the rollups by itself; this edition does, by a job';

-- A refresh that fails inside TimescaleDB cannot note it: its commits forbid an exception block. The job's books do.
create or replace view rollup_health as
select
    p.stream,
    p.refreshed_until,
    p.refreshed_at,
    coalesce(j.failed_at, p.failed_at) as failed_at,
    p.failures + coalesce(j.failures, 0) as failures,
    case
        when j.job_id is null then 'no job of the database refreshes the rollups: run "fleetwatt migrate"'
        when not j.scheduled
            then format('the job that refreshes the rollups is off: select alter_job(%s, scheduled => true)', j.job_id)
        else coalesce(j.last_error, p.last_error)
    end as last_error
from rollup_progress as p
left join lateral (
    select
        i.job_id,
        i.scheduled,
        s.total_failures as failures,
        e.failed_at,
        e.last_error
    from timescaledb_information.jobs as i
    left join timescaledb_information.job_stats as s on i.job_id = s.job_id
    left join lateral (
        select
            x.finish_time as failed_at,
            x.err_message as last_error
        from timescaledb_information.job_errors as x
        where x.job_id = i.job_id
        order by x.finish_time desc
        limit 1
    ) as e on true
    where i.proc_schema = 'public' and i.proc_name = 'refresh_rollups'
) as j on true;

comment on view meter_hourly_stored is
'Hours of meters that are rolled up, where rollup_progress and rollup_stale say so';
comment on view vehicle_hourly_stored is
'Hours of vehicles that are rolled up, where rollup_progress and rollup_stale say so';
comment on view meter_daily_stored is
'Days (UTC) of meters that are rolled up, where rollup_progress and rollup_stale say so';
comment on view vehicle_daily_stored is
'Days (UTC) of vehicles that are rolled up, where rollup_progress and rollup_stale say so';
grant execute on function refresh_is_scheduled() to fleetwatt_service;

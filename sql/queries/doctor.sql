-- What `fleetwatt doctor` looks at; see service/doctor. All of it is for the service's role to see.

-- name: doctor_server
-- What server this is, who asks, its clock, and the settings that durability and memory hang on.
select
    clock_timestamp() as now,
    current_user as login,
    coalesce(r.rolsuper, false) as is_superuser,
    -- By number: before the first migration there is no role of that name, and asking by name is an error.
    coalesce((
        select pg_has_role(o.oid, 'member') from pg_roles as o
        where o.rolname = 'fleetwatt_owner'
    ), false) as is_owner,
    current_setting('server_version') as postgres,
    current_setting('server_version_num')::int as postgres_number,
    (
        select e.extversion from pg_extension as e
        where e.extname = 'timescaledb'
    ) as timescaledb,
    current_setting('timescaledb.license', true) as license,
    current_setting('timescaledb.max_background_workers', true)::int as background_workers,
    current_setting('max_worker_processes')::int as worker_processes,
    current_setting('fsync') = 'on' as fsync,
    current_setting('full_page_writes') = 'on' as full_page_writes,
    current_setting('synchronous_commit') as synchronous_commit,
    pg_size_bytes(current_setting('shared_buffers')) as shared_buffers,
    pg_size_bytes(current_setting('effective_cache_size')) as effective_cache_size
from (values (current_user)) as me (name)
left join pg_roles as r on me.name = r.rolname;

-- name: doctor_revision
-- Which migration the database has reached.
select version_num as revision from alembic_version;

-- name: doctor_roles
-- The three roles: which are there, and what each could do that it should not.
select
    wanted.name,
    r.rolname is not null as is_there,
    coalesce(r.rolcanlogin, false) as may_log_in,
    coalesce(r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolreplication or r.rolbypassrls, false) as has_power,
    coalesce(
        wanted.name <> 'fleetwatt_owner' and (
            select pg_has_role(r.oid, o.oid, 'member') from pg_roles as o
            where o.rolname = 'fleetwatt_owner'
        ), false
    ) as is_owner
from (values ('fleetwatt_owner'), ('fleetwatt_service'), ('fleetwatt_bi')) as wanted (name)
left join pg_roles as r on wanted.name = r.rolname;

-- name: doctor_rights
-- Rights that the service needs and lacks, and rights on tables that others than the roles were given.
select
    wanted.relation,
    wanted.privilege,
    null as grantee,
    true as lacks
from (
    values
    ('meter_reading', 'insert'), ('meter_reading', 'select'),
    ('vehicle_reading', 'insert'), ('vehicle_reading', 'select'),
    ('meter_state', 'select'), ('vehicle_state', 'select'), ('charging_session', 'insert'),
    ('dead_letter', 'insert'), ('ingest_minute', 'update'), ('meter_hourly', 'select'),
    ('meter_hourly_stored', 'select')
) as wanted (relation, privilege)
where
    not coalesce(
        has_table_privilege('fleetwatt_service', to_regclass('public.' || wanted.relation), wanted.privilege), false
    )
union all
select c.relname, lower(a.privilege_type), coalesce(quote_ident(r.rolname), 'public'), false
from pg_class as c
cross join lateral aclexplode(c.relacl) as a
left join pg_roles as r on a.grantee = r.oid
where
    c.relnamespace = 'public'::regnamespace
    and c.relname in ('meter_reading', 'vehicle_reading', 'charging_session', 'dead_letter', 'api_key')
    and (
        a.grantee = 0 or r.rolname = 'fleetwatt_bi'
        or (r.rolname = 'fleetwatt_service' and a.privilege_type in ('DELETE', 'TRUNCATE'))
    );

-- name: doctor_lifecycle
-- How long the database keeps data and in which form, and how dropping went.
select
    chunk_hours,
    columnstore_after_days,
    raw_retention_days,
    rollup_retention_days,
    applied_at,
    ran_at,
    failed_at > coalesce(ran_at, '-infinity') as is_failing,
    last_error
from lifecycle;

-- name: doctor_old_chunks
-- Chunks of readings that some years are over, as no fleet of today has any, and the first time in them.
select
    c.hypertable_name::text as relation,
    count(*) as chunks,
    min(c.range_start) as range_from
from timescaledb_information.chunks as c
where
    c.hypertable_schema = 'public' and c.hypertable_name in ('meter_reading', 'vehicle_reading')
    and c.range_end < now() - %(years)s * interval '1 year'
group by c.hypertable_name
order by c.hypertable_name;

-- name: doctor_jobs
-- Jobs that the database runs for the engine.
select
    job_id,
    job,
    hypertable,
    scheduled,
    (config ->> 'compress_after')::interval as after,
    last_run_status,
    failures,
    last_error
from database_jobs();

-- name: doctor_refresh
-- Since when there are readings to roll up, and how long hours that late readings touched have waited.
select
    now() as now,
    refresh_is_scheduled() as is_scheduled,
    (select min(i.minute) from ingest_minute as i) as first_stored,
    (select min(s.logged_at) from rollup_stale as s) as oldest_stale;

-- name: doctor_growth
-- Bytes of raw readings: all, those of the last day's chunks, those in the columnstore, and the days that these cover.
with raw as (
    select
        c.hypertable_name,
        c.range_start,
        c.range_end,
        c.is_compressed,
        s.total_bytes,
        s.index_bytes
    from timescaledb_information.chunks as c
    inner join (
        select b.chunk_name, b.total_bytes, b.index_bytes from chunks_detailed_size('meter_reading') as b
        union all
        select b.chunk_name, b.total_bytes, b.index_bytes from chunks_detailed_size('vehicle_reading') as b
    ) as s on c.chunk_name = s.chunk_name
    where
        c.hypertable_schema = 'public' and c.hypertable_name in ('meter_reading', 'vehicle_reading')
        and c.range_start <= now()
)

select
    coalesce(sum(total_bytes), 0)::bigint as bytes,
    coalesce(sum(total_bytes) filter (where range_end > now() - interval '24 hours'), 0)::bigint as recent_bytes,
    coalesce(sum(index_bytes) filter (where range_end > now() - interval '24 hours'), 0)::bigint as recent_index_bytes,
    (
        extract(epoch from now() - min(range_start) filter (where range_end > now() - interval '24 hours')) / 86400
    )::float8 as recent_days,
    coalesce(sum(total_bytes) filter (where is_compressed), 0)::bigint as packed_bytes,
    (
        coalesce(sum(extract(epoch from range_end - range_start)) filter (where is_compressed), 0)
        / 86400 / nullif(count(distinct hypertable_name), 0)
    )::float8 as packed_days
from raw;

-- name: doctor_letters
-- Dead letters that no replay has stored and nobody has dismissed, and since when the oldest waits.
select count(*) as waiting, min(received_at) as since
from dead_letter
where resolved_at is null;

-- name: doctor_alert_events
-- Alert events that a channel should have delivered by now, and those that were given up.
select
    count(*) filter (where mqtt_delivered_at is null and occurred_at < now() - interval '10 minutes') as mqtt_waiting,
    count(*) filter (where webhook_state = 'pending' and webhook_next_at < now() - interval '10 minutes')
        as webhook_waiting,
    count(*) filter (where webhook_state = 'failed') as webhook_failed
from alert_event;

-- name: doctor_workers_now
-- MQTT workers that are connected to this database; each has a pool of that name for as long as it runs.
select count(distinct application_name) as workers
from pg_stat_activity
where datname = current_database() and starts_with(application_name, 'fleetwatt worker ');

-- name: doctor_workers
-- MQTT workers that have stored readings lately, and how long ago each last did, s; a process's name is mqtt/client-id.
select
    substr(writer, 6) as client_id,
    extract(epoch from now() - max(minute))::float8 as silent_s
from ingest_minute
where writer like 'mqtt/%%' and minute > now() - %(expiry_s)s * interval '1 second'
group by writer
order by writer;

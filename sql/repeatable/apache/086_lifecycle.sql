-- On this edition there is no columnstore and no job: the service drops what is too old.

create or replace function schedule_lifecycle()
returns boolean
language sql
stable
set search_path = pg_catalog, public, pg_temp
as $$
    select false
$$;
comment on function schedule_lifecycle() is
'Makes the jobs of the database those that lifecycle asks for; this edition has none; a step of apply_lifecycle';

create or replace function database_jobs()
returns table (
    job_id integer, job text, hypertable text, scheduled boolean, config jsonb,
    last_run_status text, failures bigint, last_error text
)
language sql
stable
set search_path = pg_catalog, public, pg_temp
as $$
    select null::integer, null, null, null::boolean, null::jsonb, null, null::bigint, null
    where false
$$;
comment on function database_jobs() is
'Jobs that the database runs for the engine, and how their last runs went; this edition has none';

grant execute on function
database_jobs(), drop_expired_chunk(), finish_expiry(), note_expiry_failure(text)
to fleetwatt_service;
grant execute on procedure drop_expired(integer, jsonb) to fleetwatt_service;

-- What processes do in the background; see service/maintenance.

-- name: apply_settings
-- Hands settings to the database; gives the names of those that were other before.
select apply_settings(%(names)s::text[], %(setting_values)s::float8[]);

-- name: refresh_is_scheduled
-- Whether the database refreshes the rollups by itself.
select refresh_is_scheduled();

-- name: refresh_rollups
-- Rolls up finished and stale hours; at once over when another process is at it. It commits as it goes.
call refresh_rollups();

-- name: note_refresh_failure
-- Notes that a refresh failed, and what it said.
select note_refresh_failure(%(reason)s);

-- name: job_failures
-- Runs that have failed so far, by what they do: jobs of the database, and the service's dropping where it has none.
select
    j.job,
    sum(j.failures)::bigint as failures
from (
    select
        d.job,
        coalesce(d.failures, 0) as failures
    from database_jobs() as d
    union all
    select
        'drop_expired' as job,
        l.failures
    from lifecycle as l
) as j
group by j.job;

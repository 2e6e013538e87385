-- What becomes of data as they age; see service/maintenance/retention.py.

-- name: apply_lifecycle
-- Takes over how long data are kept and in which form; tells whether that changed anything. The owner's.
select apply_lifecycle(
    %(chunk_hours)s, %(columnstore_after_days)s, %(raw_retention_days)s, %(rollup_retention_days)s
) as changed;

-- name: expired
-- What would go by these numbers of days, and what of it has to wait until it is rolled up.
select
    e.relation,
    count(*) as chunks,
    count(*) filter (where not e.may_go) as waiting,
    max(e.range_to) as range_to,
    min(e.range_to) filter (where not e.may_go) as waiting_since,
    coalesce(sum(pg_total_relation_size(to_regclass(e.chunk))), 0)::bigint as bytes
from expired_chunks(%(raw_retention_days)s, %(rollup_retention_days)s) as e
group by e.relation
order by e.relation;

-- name: columnstore_is_scheduled
-- Whether readings move to the columnstore by themselves.
select exists(
    select from database_jobs()
    where job = 'policy_compression'
) as scheduled;

-- name: drop_expired
-- Drops what is too old and rolled up, where the database does not do it by itself. It commits as it goes.
call drop_expired();

-- name: dropped_chunks
-- How many chunks have ever been dropped for their age.
select dropped_chunks from lifecycle;

-- name: note_expiry_failure
-- Notes that dropping failed, and what it said.
select note_expiry_failure(%(reason)s);

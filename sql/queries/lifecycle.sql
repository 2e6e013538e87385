-- What becomes of data as they age; see service/maintenance/retention.py.

-- name: apply_lifecycle
-- Takes over how long data are kept and in which form; tells whether that changed anything. The owner's.
select apply_lifecycle(
    %(chunk_hours)s, %(columnstore_after_days)s, %(raw_retention_days)s, %(rollup_retention_days)s
) as changed;

-- name: columnstore_is_scheduled
-- Whether readings move to the columnstore by themselves.
select exists(
    select from database_jobs()
    where job = 'policy_compression'
) as scheduled;

-- name: drop_expired
-- Drops what is too old and rolled up, where the database does not do it by itself. It commits as it goes.
call drop_expired();

-- name: note_expiry_failure
-- Notes that dropping failed, and what it said.
select note_expiry_failure(%(reason)s);

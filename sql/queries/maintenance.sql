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

-- On this edition no job of the database refreshes the rollups: the service does, step by step.
grant execute on function
close_hours(),
note_chunks(text, timestamptz, timestamptz), rollup_work(text),
finish_rollup(text, timestamptz, timestamptz, bigint[], boolean), note_refresh(), note_refresh_failure(text),
store_session_edges(timestamptz, timestamptz), fill_session_edges(integer),
store_balances(timestamptz, timestamptz, text[]), fill_balances(integer), evaluate_alerts()
to fleetwatt_service;
grant execute on procedure
refresh_rollups(integer, jsonb), refresh_run(text, timestamptz, timestamptz, bigint[])
to fleetwatt_service;

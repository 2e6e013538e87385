-- Numbers of transactions start anew where a dump was restored into another server. What bears a number that this one
-- has not given yet would count as new for ever, and what an evaluation of alerts has seen would hide what comes.
delete from alert_evaluation where pg_snapshot_xmax(seen) > pg_current_xact_id();
update session_change set changed_by = pg_current_xact_id() where changed_by > pg_current_xact_id();

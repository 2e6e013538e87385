-- Lines of files that were refused are kept once, however often a file is imported. Runs once.

set local lock_timeout = '10s';
set local statement_timeout = '10min';

set local role fleetwatt_owner;

-- Of import letters alone, so other letters cost nothing more. A hash takes bytes of any length. Measured: a file of
-- 300,000 lines, 5,455 of them refused, imported again beside 300,000 letters of others: 5 s, and 41 s without it.
-- Writers of dead letters wait for moments only: the table is small beside the history.
-- squawk-ignore require-concurrent-index-creation
create index dead_letter_imported on dead_letter using hash (raw) where starts_with(origin, 'import:');

reset role;

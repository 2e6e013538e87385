-- Lines of files that were refused are kept once, however often a file is imported. Runs once.

set local lock_timeout = '10s';
set local statement_timeout = '10min';

set local role fleetwatt_owner;

-- Of import letters alone, so other letters cost nothing more. A hash takes bytes of any length.
-- Writers of dead letters wait for moments only: the table is small beside the history.
-- squawk-ignore require-concurrent-index-creation
create index dead_letter_imported on dead_letter using hash (raw) where starts_with(origin, 'import:');

reset role;

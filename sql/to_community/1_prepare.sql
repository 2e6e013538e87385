-- A place for continuous aggregates beside the tables that are still in use; the migrations of the edition make them.
set local role fleetwatt_owner;
create schema fleetwatt_next;
comment on schema fleetwatt_next is 'Rollups of the Community edition while fleetwatt migrate fills them';
reset role;
set local search_path = fleetwatt_next, public;

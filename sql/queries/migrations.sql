-- What `fleetwatt migrate` asks before it changes anything; see service/migrations.py.

-- name: edition_of_rollups
-- For which edition the rollups were made: on Apache-2 what is stored of them are tables. Null before there are any.
select
    case
        when t.relkind = 'r' then 'apache'
        when to_regclass('public.meter_hourly') is not null then 'community'
    end
from (select 1) as always
left join pg_class as t on t.oid = to_regclass('public.meter_hourly_stored');

-- name: keep_from_refreshing
-- Waits for the refresh that is under way and keeps out every other one for as long as this session lives.
select pg_advisory_lock(1718383735, 2);

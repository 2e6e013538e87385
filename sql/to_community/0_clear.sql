-- What a change of edition that was broken off has left, if anything. Nothing of it was in use yet, but as long as it
-- is there the server takes no reading under the licence Apache-2.
do $$
declare
    rollup text;
begin
    if pg_catalog.to_regnamespace('fleetwatt_next') is null then
        return;
    end if;
    set local role fleetwatt_owner;
    foreach rollup in array array['meter_daily', 'vehicle_daily', 'meter_hourly', 'vehicle_hourly'] loop
        execute format('drop materialized view if exists fleetwatt_next.%I', rollup);
    end loop;
    drop schema fleetwatt_next;
end
$$;

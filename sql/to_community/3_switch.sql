-- Puts the continuous aggregates where the tables were. What follows in this transaction makes all that builds on
-- them anew; whoever reads sees the one or the other.
set local role fleetwatt_owner;
create schema fleetwatt_before;
do $$
declare
    rollup text;
    page regclass;
begin
    -- Whoever asks something may hold one of these and want another. So nobody is waited for long: before PostgreSQL
    -- looks for a deadlock (after 1 s) all is let go, and tried again.
    set local lock_timeout = '100ms';
    for attempt in 1..600 loop
        begin
            foreach rollup in array array['meter_hourly', 'vehicle_hourly', 'meter_daily', 'vehicle_daily'] loop
                execute format('alter view public.%I set schema fleetwatt_before', rollup);
                execute format('alter table public.%I set schema fleetwatt_before', rollup || '_stored');
                execute format('alter materialized view fleetwatt_next.%I set schema public', rollup);
            end loop;
            -- Made anew later in this transaction, and locked now. (LOCK would lock all that a view stands on.)
            for page in
                select c.oid from pg_catalog.pg_class as c
                where c.relnamespace = 'bi'::regnamespace and c.relkind = 'v' and c.relowner = 'fleetwatt_owner'::regrole
                order by c.oid
            loop
                execute format('alter view %s owner to fleetwatt_owner', page);
            end loop;
            set local lock_timeout = '30s';
            return;
        exception
            when lock_not_available then
                perform pg_sleep(random() * 0.3);
        end;
    end loop;
    raise exception 'the rollups are being read all the time, so they cannot be moved'
    using errcode = 'lock_not_available', hint = 'nothing has been changed: run "fleetwatt migrate" when less is asked';
end
$$;
drop schema fleetwatt_next;

-- The refresh runs as a job of the database, once a minute; it does nothing when there is nothing to do.
do $$
begin
    if not exists (
        select from timescaledb_information.jobs
        where proc_schema = 'public' and proc_name = 'refresh_rollups'
    ) then
        perform alter_job(
            add_job('public.refresh_rollups', interval '1 minute'), retry_period => interval '1 minute'
        );
    end if;
end
$$;

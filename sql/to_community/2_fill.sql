-- Copies what is rolled up into the continuous aggregates, chunk by chunk, each in a transaction of its own. Nothing
-- is rolled up anew: years of raw rows would take days, and hours whose raw rows are gone have nothing but this.
-- Whoever runs this holds the lock of the refresh, so the tables do not change meanwhile.
do $$
declare
    rollup record;
    part record;
    first_bin timestamptz;
    differs boolean;
begin
    for rollup in
        select
            c.view_name as name,
            bin.name as bin,
            format('%I.%I', c.materialization_hypertable_schema, c.materialization_hypertable_name) as target,
            string_agg(quote_ident(a.attname), ', ' order by a.attnum) as listed,
            string_agg(
                case when a.attname = bin.name then '%1$L::timestamptz' else quote_ident(a.attname) end, ', '
                order by a.attnum
            ) as with_bin
        from timescaledb_information.continuous_aggregates as c
        cross join lateral (select case when c.view_name like '%hourly' then 'hour' else 'day' end as name) as bin
        inner join pg_catalog.pg_attribute as a
            on a.attrelid = format('public.%I', c.view_name || '_stored')::regclass
            and a.attnum > 0 and not a.attisdropped
        where c.view_schema = 'fleetwatt_next'
        group by 1, 2, 3
        -- Hours first: the days are built on them.
        order by bin.name desc, 1
    loop
        for part in
            select c.range_start, c.range_end
            from timescaledb_information.chunks as c
            where c.hypertable_schema = 'public' and c.hypertable_name = rollup.name || '_stored'
            order by c.range_start
        loop
            set local role fleetwatt_owner;
            execute format(
                'insert into %1$s (%2$s) select %2$s from public.%3$I where %4$I >= %5$L and %4$I < %6$L',
                rollup.target, rollup.listed, rollup.name || '_stored', rollup.bin, part.range_start, part.range_end
            );
            commit;
        end loop;
        execute format('select min(%I) from public.%I', rollup.bin, rollup.name || '_stored') into first_bin;
        continue when first_bin is null;
        -- The view shows what is stored up to a line, and raw rows from there on. TimescaleDB moves that line to the
        -- end of what is stored when a refresh has changed something: so it gets a row to remove, a day before the
        -- first one, where there is no other.
        set local role fleetwatt_owner;
        execute format(
            'insert into %s (%s) select %s from public.%I limit 1',
            rollup.target, rollup.listed,
            format(rollup.with_bin, public.time_bucket('1 day', first_bin) - interval '24 hours'),
            rollup.name || '_stored'
        );
        commit;
        call public.refresh_continuous_aggregate(
            format('fleetwatt_next.%I', rollup.name)::regclass,
            public.time_bucket('1 day', first_bin) - interval '24 hours', public.time_bucket('1 day', first_bin)
        );
        commit;
        execute format(
            'select exists (select %1$s from public.%2$I where %3$I = %4$L except '
            'select %1$s from fleetwatt_next.%5$I where %3$I = %4$L)',
            rollup.listed, rollup.name || '_stored', rollup.bin, first_bin, rollup.name
        ) into differs;
        if differs then
            raise exception 'the continuous aggregate % does not show what was copied into it', rollup.name
            using hint = 'nothing has been changed; this version of TimescaleDB behaves in a way that is not known here';
        end if;
    end loop;
end
$$;

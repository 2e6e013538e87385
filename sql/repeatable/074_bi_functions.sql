-- Exact answers for BI tools, for any window. They take what they need as arguments, so they read only the chunks of
-- the window, and count late readings at once. They run with their owner's rights, since the role that asks may see
-- nothing but bi; they only read, and give no more than sums of energy and counts. `strict`: a null argument gives
-- no row, never everybody's energy.

create or replace function bi.vehicle_performance(
    wanted_vehicle text, window_from timestamptz, window_to timestamptz
)
returns table (
    kwh_ac double precision,
    kwh_dc double precision,
    kwh_lost double precision,
    efficiency_ratio double precision,
    battery_temp_avg_c double precision,
    meter_readings bigint,
    vehicle_readings bigint
)
language sql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    select
        p.kwh_ac, p.kwh_dc, p.kwh_ac - p.kwh_dc, p.kwh_dc / nullif(p.kwh_ac, 0),
        p.battery_temp_sum / nullif(p.vehicle_readings, 0), p.meter_readings, p.vehicle_readings
    from vehicle_performance(wanted_vehicle, window_from, window_to) as p
$$;
comment on function bi.vehicle_performance(text, timestamptz, timestamptz) is
'Energy summary of one vehicle over [from, to), exact: AC billed through its sessions, DC delivered, loss, DC / AC';

create or replace function bi.vehicle_series(
    wanted_vehicle text, window_from timestamptz, window_to timestamptz, width text, zone text default 'UTC'
)
returns table (
    window_start timestamptz,
    kwh_ac double precision,
    kwh_dc double precision,
    kwh_lost double precision,
    efficiency_ratio double precision,
    battery_temp_avg_c double precision,
    meter_readings bigint,
    vehicle_readings bigint
)
language sql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    with bins as (
        select whole_window_edges(window_from, window_to, width, zone) as edges
    ),

    energy as (
        select
            e.place, sum(e.kwh_ac) as kwh_ac, sum(e.kwh_dc) as kwh_dc, sum(e.temp_sum) as temp_sum,
            sum(e.meter_readings)::bigint as meter_readings, sum(e.vehicle_readings)::bigint as vehicle_readings
        from (
            select
                b.place, b.kwh as kwh_ac, b.readings as meter_readings, 0::double precision as kwh_dc,
                0::bigint as vehicle_readings, 0::double precision as temp_sum
            from bins
            cross join lateral billed(bins.edges, wanted_vehicle) as b
            union all
            select d.place, 0, 0, d.kwh, d.readings, d.battery_temp_sum
            from bins
            cross join lateral delivered(bins.edges, wanted_vehicle) as d
        ) as e
        group by e.place
    )

    select
        bins.edges[n.place], coalesce(e.kwh_ac, 0), coalesce(e.kwh_dc, 0),
        coalesce(e.kwh_ac, 0) - coalesce(e.kwh_dc, 0), e.kwh_dc / nullif(e.kwh_ac, 0),
        e.temp_sum / nullif(e.vehicle_readings, 0), coalesce(e.meter_readings, 0), coalesce(e.vehicle_readings, 0)
    from bins
    cross join lateral generate_series(1, cardinality(bins.edges) - 1) as n (place)
    left join energy as e on n.place = e.place
    order by n.place
$$;
comment on function bi.vehicle_series(text, timestamptz, timestamptz, text, text) is
'Energy of one vehicle by hour, day, week or month of a time zone, exact: a row for each that touches [from, to)';

-- Up to where both streams are rolled up. Before the first refresh nothing is, and the readings tell where they begin.
create or replace function rollup_line()
returns timestamptz
language plpgsql
stable
parallel safe
security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    line timestamptz := (select min(p.refreshed_until) from rollup_progress as p);
begin
    if not isfinite(line) then
        select least(
            (select min(m.recorded_at) from meter_reading as m), (select min(v.recorded_at) from vehicle_reading as v)
        )
        into line;
    end if;
    return line;
end
$$;
comment on function rollup_line() is
'Up to where both streams are rolled up; before the first refresh, the first reading; for the schema bi';

grant execute on function rollup_line() to fleetwatt_bi;

create or replace function bi.fleet_performance(window_from timestamptz, window_to timestamptz)
returns table (
    vehicle_id text,
    kwh_ac double precision,
    kwh_dc double precision,
    kwh_lost double precision,
    efficiency_ratio double precision,
    meter_readings bigint,
    vehicle_readings bigint
)
language sql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    select
        p.vehicle_id, p.kwh_ac, p.kwh_dc, p.kwh_ac - p.kwh_dc, p.kwh_dc / nullif(p.kwh_ac, 0),
        p.meter_readings, p.vehicle_readings
    from fleet_performance(window_from, window_to) as p
$$;
comment on function bi.fleet_performance(timestamptz, timestamptz) is
'bi.vehicle_performance of every vehicle that drew or reported something in [from, to): one row a vehicle';

create or replace function bi.fleet_series(
    window_from timestamptz, window_to timestamptz, width text, zone text default 'UTC'
)
returns table (
    window_start timestamptz,
    kwh_ac double precision,
    kwh_dc double precision,
    kwh_lost double precision,
    efficiency_ratio double precision,
    meter_readings bigint,
    vehicle_readings bigint,
    vehicles bigint
)
language sql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    with bins as (
        select whole_window_edges(window_from, window_to, width, zone) as edges
    )

    select
        bins.edges[n.place], coalesce(t.kwh_ac, 0), coalesce(t.kwh_dc, 0),
        coalesce(t.kwh_ac, 0) - coalesce(t.kwh_dc, 0), t.kwh_dc / nullif(t.kwh_ac, 0),
        coalesce(t.meter_readings, 0), coalesce(t.vehicle_readings, 0), coalesce(t.vehicles, 0)
    from bins
    cross join lateral generate_series(1, cardinality(bins.edges) - 1) as n (place)
    left join lateral (select f.* from fleet_totals(bins.edges) as f) as t on n.place = t.place
    order by n.place
$$;
comment on function bi.fleet_series(timestamptz, timestamptz, text, text) is
'Energy of the fleet by hour, day, week or month of a time zone, exact: a row for each that touches [from, to)';

create or replace function bi.charger_performance(window_from timestamptz, window_to timestamptz)
returns table (
    meter_id text,
    vehicle_id text,
    connected_h double precision,
    kwh_ac double precision,
    kwh_dc double precision,
    kwh_lost double precision,
    efficiency_ratio double precision,
    meter_readings bigint,
    vehicle_readings bigint
)
language sql
stable
strict
parallel safe
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    select
        p.meter_id, p.vehicle_id, p.connected_s / 3600, p.kwh_ac, p.kwh_dc, p.kwh_ac - p.kwh_dc,
        p.kwh_dc / nullif(p.kwh_ac, 0), p.meter_readings, p.vehicle_readings
    from pair_energy(window_from, window_to) as p
$$;
comment on function bi.charger_performance(timestamptz, timestamptz) is
'Energy of each charger (meter) and vehicle while it drew from that charger alone in [from, to), exact';

-- Grafana groups by time_bucket once it has seen TimescaleDB, but public, where that lives, is closed to the role.
create or replace function bi.time_bucket(bucket_width interval, ts timestamptz)
returns timestamptz
language sql
immutable
strict
parallel safe
return public.time_bucket(bucket_width, ts);
comment on function bi.time_bucket(interval, timestamptz) is
'TimescaleDB''s time_bucket, in reach of BI tools: the start of the bucket (UTC) that a time falls into';

grant execute on function
bi.vehicle_performance(text, timestamptz, timestamptz),
bi.vehicle_series(text, timestamptz, timestamptz, text, text),
bi.fleet_performance(timestamptz, timestamptz),
bi.fleet_series(timestamptz, timestamptz, text, text),
bi.charger_performance(timestamptz, timestamptz),
bi.time_bucket(interval, timestamptz)
to fleetwatt_bi;

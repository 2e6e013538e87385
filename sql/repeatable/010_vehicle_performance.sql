-- Energy summary of one vehicle over [window_from, window_to): what was billed, what arrived.
-- AC is the sum over the vehicle's sessions of the readings of the session's meter whose timestamps fall
-- into both the session and the window, start included, end excluded. No meter reading can count twice,
-- since a meter serves one vehicle at a time. DC is the sum over the vehicle's own readings.
-- The two sides are summed apart, so unequal clocks or counts of readings cannot distort either.
create or replace function vehicle_performance(
    wanted_vehicle text, window_from timestamptz, window_to timestamptz
)
returns table (
    kwh_ac double precision,
    kwh_dc double precision,
    battery_temp_sum double precision,
    meter_readings bigint,
    vehicle_readings bigint
)
language sql
stable
parallel safe
set search_path = pg_catalog, public
as $$
    with billed as (
        select
            coalesce(sum(drawn.kwh), 0) as kwh,
            coalesce(sum(drawn.readings), 0)::bigint as readings
        from charging_session as s
        cross join lateral (
            select
                sum(r.kwh_consumed_ac) as kwh,
                count(*) as readings
            from meter_reading as r
            where
                r.meter_id = s.meter_id
                and r.recorded_at >= greatest(lower(s.during), window_from)
                and r.recorded_at < least(coalesce(upper(s.during), 'infinity'), window_to)
                and r.recorded_at >= window_from
                and r.recorded_at < window_to
        ) as drawn
        where
            s.vehicle_id = wanted_vehicle
            and s.during && tstzrange(window_from, window_to)
    ),

    arrived as (
        select
            coalesce(sum(r.kwh_delivered_dc), 0) as kwh,
            sum(r.battery_temp) as battery_temp_sum,
            count(*) as readings
        from vehicle_reading as r
        where
            r.vehicle_id = wanted_vehicle
            and r.recorded_at >= window_from
            and r.recorded_at < window_to
    )

    select
        billed.kwh,
        arrived.kwh,
        arrived.battery_temp_sum,
        billed.readings,
        arrived.readings
    from billed
    cross join arrived
$$;

comment on function vehicle_performance(text, timestamptz, timestamptz) is
'Energy summary of one vehicle over [from, to): AC billed through its sessions, DC delivered, counts; kWh';

grant execute on function vehicle_performance(text, timestamptz, timestamptz) to fleetwatt_service;

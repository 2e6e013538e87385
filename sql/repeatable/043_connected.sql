-- Energy of a vehicle and a meter while they were connected. Where a vehicle drew from two meters at once, nobody can
-- tell what each of them delivered: such time counts for neither.
-- The first two are put into the queries that call them, and so are not pinned to a search_path: see 020_windows.sql.

-- When a vehicle was connected to other meters than one.
create or replace function connected_elsewhere(wanted_vehicle text, wanted_meter text, asked tstzrange)
returns table (spans tstzmultirange)
language sql
stable
parallel safe
as $$
    select coalesce(range_agg(s.during), '{}')
    from public.charging_session as s
    where s.vehicle_id = wanted_vehicle and s.during && asked and s.meter_id <> wanted_meter
$$;
comment on function connected_elsewhere(text, text, tstzrange) is
'When a vehicle''s sessions with other meters than this one lasted, of those that touch a span';

-- `exact`, `days` and `hours` are the rolled_up() of meters and vehicles.
create or replace function connected_energy(
    wanted_vehicle text,
    wanted_meter text,
    connected tstzmultirange,
    meter_exact tstzmultirange,
    meter_days tstzmultirange,
    meter_hours tstzmultirange,
    vehicle_days tstzmultirange,
    vehicle_hours tstzmultirange,
    edges timestamptz[]
)
returns table (
    place integer,
    kwh_ac double precision,
    meter_readings bigint,
    kwh_dc double precision,
    vehicle_readings bigint
)
language sql
stable
parallel safe
as $$
    select e.place, sum(e.kwh_ac), sum(e.meter_readings)::bigint, sum(e.kwh_dc), sum(e.vehicle_readings)::bigint
    from (
        select
            m.place, m.kwh as kwh_ac, m.readings as meter_readings, 0::double precision as kwh_dc,
            0::bigint as vehicle_readings
        from unnest(connected) as part (span)
        cross join lateral
            public.meter_energy(wanted_meter, part.span, meter_exact, meter_days, meter_hours, edges) as m
        union all
        select v.place, 0::double precision, 0::bigint, v.kwh, v.readings
        from unnest(connected) as part (span)
        cross join lateral public.vehicle_energy(wanted_vehicle, part.span, vehicle_days, vehicle_hours, edges) as v
    ) as e
    group by e.place
$$;
comment on function connected_energy(
    text, text, tstzmultirange, tstzmultirange, tstzmultirange, tstzmultirange, tstzmultirange, tstzmultirange,
    timestamptz[]
) is
'AC of a meter and DC of a vehicle (kWh) in the spans in which they were connected, window by window';

grant execute on function
connected_elsewhere(text, text, tstzrange),
connected_energy(
    text, text, tstzmultirange, tstzmultirange, tstzmultirange, tstzmultirange, tstzmultirange, tstzmultirange,
    timestamptz[]
)
to fleetwatt_service;

-- Efficiency as BI tools see it: by vehicle, by charger (meter) and of the whole fleet, by hour and by day.
--
-- Three ways, each the cheapest for its question. Hours of vehicles come from relations, in one pass. Days, and
-- whatever concerns chargers, ask an exact function for each device and day: a plan over all sessions and hours at once
-- went wrong by a factor of ten. The fleet asks one for each hour or day. Filters on time and id leave
-- the other calls out. For many devices at once the functions of 074_bi_functions.sql are quicker by far.

create or replace view bi.vehicle_efficiency_hourly as
select
    e.vehicle_id,
    e.hour,
    sum(e.kwh_ac) as kwh_ac,
    sum(e.kwh_dc) as kwh_dc,
    sum(e.kwh_ac) - sum(e.kwh_dc) as kwh_lost,
    sum(e.kwh_dc) / nullif(sum(e.kwh_ac), 0) as efficiency_ratio,
    sum(e.meter_readings)::bigint as meter_readings,
    sum(e.vehicle_readings)::bigint as vehicle_readings
from (
    select
        b.vehicle_id,
        b.hour,
        b.kwh_ac,
        b.readings as meter_readings,
        0::double precision as kwh_dc,
        0::bigint as vehicle_readings
    from billed_hourly as b
    union all
    select
        v.vehicle_id,
        v.hour,
        0,
        0,
        v.kwh_dc,
        v.readings
    from vehicle_hourly as v
) as e
group by e.vehicle_id, e.hour;
comment on view bi.vehicle_efficiency_hourly is
'What was billed to each vehicle and what arrived, by hour; a late reading shows after the next refresh';
comment on column bi.vehicle_efficiency_hourly.vehicle_id is 'The vehicle''s id';
comment on column bi.vehicle_efficiency_hourly.hour is 'Start of the hour, UTC';
comment on column bi.vehicle_efficiency_hourly.kwh_ac is 'AC energy billed through sessions, kWh';
comment on column bi.vehicle_efficiency_hourly.kwh_dc is 'DC energy that the vehicle reported, kWh';
comment on column bi.vehicle_efficiency_hourly.kwh_lost is 'AC less DC, kWh';
comment on column bi.vehicle_efficiency_hourly.efficiency_ratio is 'DC / AC; null without AC';
comment on column bi.vehicle_efficiency_hourly.meter_readings is 'Readings of the meters in its sessions';
comment on column bi.vehicle_efficiency_hourly.vehicle_readings is 'Readings of the vehicle';

create or replace view bi.vehicle_efficiency_daily as
select
    d.vehicle_id,
    d.day,
    p.kwh_ac,
    p.kwh_dc,
    p.kwh_lost,
    p.efficiency_ratio,
    p.meter_readings,
    p.vehicle_readings
from (
    select
        v.vehicle_id,
        v.day
    from vehicle_daily as v
    union
    -- A vehicle that is charged in silence is billed all the same.
    select
        s.vehicle_id,
        g.day
    from charging_session as s
    cross join
        lateral generate_series(
            date_bin('1 day', lower(s.during), '2000-01-01 00:00+00'),
            least(upper(s.during) - interval '1 microsecond', now()),
            interval '24 hours'
        ) as g (day)
) as d
cross join lateral bi.vehicle_performance(d.vehicle_id, d.day, d.day + interval '24 hours') as p
where p.meter_readings + p.vehicle_readings > 0;
comment on view bi.vehicle_efficiency_daily is
'What was billed to each vehicle and what arrived, by day (UTC); late readings included at once';
comment on column bi.vehicle_efficiency_daily.vehicle_id is 'The vehicle''s id';
comment on column bi.vehicle_efficiency_daily.day is 'Start of the day, UTC';
comment on column bi.vehicle_efficiency_daily.kwh_ac is 'AC energy billed through sessions, kWh';
comment on column bi.vehicle_efficiency_daily.kwh_dc is 'DC energy that the vehicle reported, kWh';
comment on column bi.vehicle_efficiency_daily.kwh_lost is 'AC less DC, kWh';
comment on column bi.vehicle_efficiency_daily.efficiency_ratio is 'DC / AC; null without AC';
comment on column bi.vehicle_efficiency_daily.meter_readings is 'Readings of the meters in its sessions';
comment on column bi.vehicle_efficiency_daily.vehicle_readings is 'Readings of the vehicle';

create or replace view bi.charger_efficiency_hourly as
select
    u.meter_id,
    u.hour,
    e.kwh_ac,
    e.kwh_dc,
    e.kwh_ac - e.kwh_dc as kwh_lost,
    e.kwh_dc / nullif(e.kwh_ac, 0) as efficiency_ratio,
    e.meter_readings,
    e.vehicle_readings
from (
    select
        c.meter_id,
        c.hour,
        bool_or(c.reported) as reported
    from (
        select
            m.meter_id,
            m.hour,
            true as reported
        from meter_hourly as m
        union all
        -- While the meter is silent, what arrives is delivered all the same. A join could read the live tail of all
        -- vehicles; so each of a session's hours is looked up, where the filter on time leaves it.
        select
            s.meter_id,
            g.hour,
            false
        from charging_session as s
        cross join
            lateral generate_series(
                date_bin('1 hour', lower(s.during), '2000-01-01 00:00+00'),
                least(upper(s.during) - interval '1 microsecond', now() + interval '5 minutes'),
                interval '1 hour'
            ) as g (hour)
        where
            exists (
                select 1 from vehicle_hourly as v
                where v.vehicle_id = s.vehicle_id and v.hour = g.hour
                offset 0
            )
    ) as c
    group by c.meter_id, c.hour
) as u
cross join lateral public.charger_energy(u.meter_id, u.hour, u.hour + interval '1 hour') as e
where u.reported or e.vehicle_readings > 0;
comment on view bi.charger_efficiency_hourly is
'AC and DC of each charger (meter) while a vehicle drew from it alone, for each hour in which either reported';
comment on column bi.charger_efficiency_hourly.meter_id is 'The meter''s id';
comment on column bi.charger_efficiency_hourly.hour is 'Start of the hour, UTC';
comment on column bi.charger_efficiency_hourly.kwh_ac is 'AC energy while connected, kWh';
comment on column bi.charger_efficiency_hourly.kwh_dc is 'DC energy that the connected vehicle reported, kWh';
comment on column bi.charger_efficiency_hourly.kwh_lost is 'AC less DC, kWh';
comment on column bi.charger_efficiency_hourly.efficiency_ratio is 'DC / AC; null without AC';
comment on column bi.charger_efficiency_hourly.meter_readings is 'Readings of the meter while connected';
comment on column bi.charger_efficiency_hourly.vehicle_readings is 'Readings of the connected vehicle';

create or replace view bi.charger_efficiency_daily as
select
    u.meter_id,
    u.day,
    e.kwh_ac,
    e.kwh_dc,
    e.kwh_ac - e.kwh_dc as kwh_lost,
    e.kwh_dc / nullif(e.kwh_ac, 0) as efficiency_ratio,
    e.meter_readings,
    e.vehicle_readings
from (
    select
        c.meter_id,
        c.day,
        bool_or(c.reported) as reported
    from (
        select
            m.meter_id,
            m.day,
            true as reported
        from meter_daily as m
        union all
        -- As above, by day.
        select
            s.meter_id,
            g.day,
            false
        from charging_session as s
        cross join
            lateral generate_series(
                date_bin('1 day', lower(s.during), '2000-01-01 00:00+00'),
                least(upper(s.during) - interval '1 microsecond', now() + interval '5 minutes'),
                interval '24 hours'
            ) as g (day)
        where
            exists (
                select 1 from vehicle_daily as v
                where v.vehicle_id = s.vehicle_id and v.day = g.day
                offset 0
            )
    ) as c
    group by c.meter_id, c.day
) as u
cross join lateral public.charger_energy(u.meter_id, u.day, u.day + interval '24 hours') as e
where u.reported or e.vehicle_readings > 0;
comment on view bi.charger_efficiency_daily is
'AC and DC of each charger (meter) while a vehicle drew from it alone, for each day (UTC) on which either reported';
comment on column bi.charger_efficiency_daily.meter_id is 'The meter''s id';
comment on column bi.charger_efficiency_daily.day is 'Start of the day, UTC';
comment on column bi.charger_efficiency_daily.kwh_ac is 'AC energy while connected, kWh';
comment on column bi.charger_efficiency_daily.kwh_dc is 'DC energy that the connected vehicle reported, kWh';
comment on column bi.charger_efficiency_daily.kwh_lost is 'AC less DC, kWh';
comment on column bi.charger_efficiency_daily.efficiency_ratio is 'DC / AC; null without AC';
comment on column bi.charger_efficiency_daily.meter_readings is 'Readings of the meter while connected';
comment on column bi.charger_efficiency_daily.vehicle_readings is 'Readings of the connected vehicle';

-- What is rolled up says which hours there are; since then, the clock does.
create or replace view bi.fleet_hourly as
select
    u.hour,
    t.kwh_ac,
    t.kwh_dc,
    t.kwh_ac - t.kwh_dc as kwh_lost,
    t.kwh_dc / nullif(t.kwh_ac, 0) as efficiency_ratio,
    t.meter_readings,
    t.vehicle_readings,
    t.vehicles
from (
    select m.hour
    from meter_hourly_stored as m
    union
    select v.hour
    from vehicle_hourly_stored as v
    union
    select tail.hour
    from (select rollup_line() as line) as p
    cross join
        lateral generate_series(
            date_bin('1 hour', p.line, '2000-01-01 00:00+00'), now() + interval '5 minutes', interval '1 hour'
        ) as tail (hour)
) as u
cross join lateral public.fleet_totals(array[u.hour, u.hour + interval '1 hour']) as t;
comment on view bi.fleet_hourly is
'What was billed to the whole fleet and what arrived, for each hour with either; late readings included at once';
comment on column bi.fleet_hourly.hour is 'Start of the hour, UTC';
comment on column bi.fleet_hourly.kwh_ac is 'AC energy billed through sessions, kWh';
comment on column bi.fleet_hourly.kwh_dc is 'DC energy that all vehicles reported, kWh';
comment on column bi.fleet_hourly.kwh_lost is 'AC less DC, kWh';
comment on column bi.fleet_hourly.efficiency_ratio is 'DC / AC; null without AC';
comment on column bi.fleet_hourly.meter_readings is 'Readings of meters in sessions';
comment on column bi.fleet_hourly.vehicle_readings is 'Readings of vehicles';
comment on column bi.fleet_hourly.vehicles is 'Vehicles that drew or reported something';

create or replace view bi.fleet_daily as
select
    u.day,
    t.kwh_ac,
    t.kwh_dc,
    t.kwh_ac - t.kwh_dc as kwh_lost,
    t.kwh_dc / nullif(t.kwh_ac, 0) as efficiency_ratio,
    t.meter_readings,
    t.vehicle_readings,
    t.vehicles
from (
    select m.day
    from meter_daily_stored as m
    union
    select v.day
    from vehicle_daily_stored as v
    union
    select tail.day
    from (select rollup_line() as line) as p
    cross join
        lateral generate_series(
            date_bin('1 day', p.line, '2000-01-01 00:00+00'), now() + interval '5 minutes', interval '24 hours'
        ) as tail (day)
) as u
cross join lateral public.fleet_totals(array[u.day, u.day + interval '24 hours']) as t;
comment on view bi.fleet_daily is
'What was billed to the whole fleet and what arrived, for each day (UTC) with either; late readings included at once';
comment on column bi.fleet_daily.day is 'Start of the day, UTC';
comment on column bi.fleet_daily.kwh_ac is 'AC energy billed through sessions, kWh';
comment on column bi.fleet_daily.kwh_dc is 'DC energy that all vehicles reported, kWh';
comment on column bi.fleet_daily.kwh_lost is 'AC less DC, kWh';
comment on column bi.fleet_daily.efficiency_ratio is 'DC / AC; null without AC';
comment on column bi.fleet_daily.meter_readings is 'Readings of meters in sessions';
comment on column bi.fleet_daily.vehicle_readings is 'Readings of vehicles';
comment on column bi.fleet_daily.vehicles is 'Vehicles that drew or reported something';

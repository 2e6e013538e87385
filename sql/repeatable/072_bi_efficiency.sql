-- What the efficiency views of the schema bi are made of. None of this can be named by the role fleetwatt_bi.
--
-- A view cannot be handed a window, so the exact arithmetic of 040_energy.sql is laid out in relations here:
-- whole rolled-up hours of a session come from the rollup; the hours that a session's start or end cuts, and the
-- live tail, from the raw rows of that one device and span. For finished hours that no late reading waits in, that
-- equals vehicle_performance. A filter on time or id reaches the rollup's index and the list of cut hours.

-- Raw rows by hour, of one device and span. A function with plans of its own, since only then does the planner know
-- the bounds: in a view it would have to open, and lock, every chunk there is.
create or replace function meter_raw_hours(wanted_meter text, span_from timestamptz, span_to timestamptz)
returns table (hour timestamptz, kwh double precision, readings bigint)
language plpgsql
stable
parallel safe
security definer
rows 1
set search_path = pg_catalog, public, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
    return query
    select time_bucket('1 hour', r.recorded_at), sum(r.kwh_consumed_ac), count(*)
    from meter_reading as r
    where r.meter_id = wanted_meter and r.recorded_at >= span_from and r.recorded_at < span_to
    group by 1;
end
$$;
comment on function meter_raw_hours(text, timestamptz, timestamptz) is
'AC energy (kWh) and readings of one meter in [from, to), by hour, from the raw rows; for views of the schema bi';

create or replace view billed_hourly as
select
    s.vehicle_id,
    h.hour,
    h.kwh_ac,
    h.readings
from rollup_progress as p
inner join meter_hourly_stored as h on p.refreshed_until > h.hour
-- The range serves the index of sessions, its two ends that of the rollup: the planner may begin at either.
inner join charging_session as s
    on
        h.meter_id = s.meter_id
        and s.during @> tstzrange(h.hour, h.hour + interval '1 hour')
        and h.hour >= lower(s.during)
        and h.hour <= coalesce(upper(s.during), 'infinity') - interval '1 hour'
where p.stream = 'meter'
union all
select
    s.vehicle_id,
    c.bin,
    r.kwh,
    r.readings
from rollup_progress as p
cross join charging_session as s
cross join lateral public.cut_parts(s.during * tstzrange(null, p.refreshed_until), interval '1 hour') as c
cross join lateral public.meter_raw_hours(s.meter_id, c.part_from, c.part_to) as r
where p.stream = 'meter'
union all
select
    s.vehicle_id,
    r.hour,
    r.kwh,
    r.readings
from rollup_progress as p
inner join charging_session as s on s.during && tstzrange(p.refreshed_until, null)
cross join
    lateral public.meter_raw_hours(
        s.meter_id, greatest(lower(s.during), p.refreshed_until), coalesce(upper(s.during), 'infinity')
    ) as r
where p.stream = 'meter';
comment on view billed_hourly is
'AC that sessions billed to each vehicle, by hour; several rows an hour and vehicle, to be summed';
comment on column billed_hourly.vehicle_id is 'The vehicle of the session';
comment on column billed_hourly.hour is 'Start of the hour, UTC';
comment on column billed_hourly.kwh_ac is 'AC energy while the session lasted, kWh';
comment on column billed_hourly.readings is 'Readings of the meter while the session lasted';

-- pair_energy of one charger, all its vehicles together: where a vehicle drew from two meters at once, nobody can
-- tell what each delivered, and those spans count for neither.
create or replace function charger_energy(wanted_meter text, window_from timestamptz, window_to timestamptz)
returns table (
    kwh_ac double precision, kwh_dc double precision, meter_readings bigint, vehicle_readings bigint
)
language sql
stable
parallel safe
security definer
rows 1
set search_path = pg_catalog, public, pg_temp
as $$
    select
        coalesce(sum(p.kwh_ac), 0),
        coalesce(sum(p.kwh_dc), 0),
        coalesce(sum(p.meter_readings), 0)::bigint,
        coalesce(sum(p.vehicle_readings), 0)::bigint
    from pair_energy(window_from, window_to, wanted_meter) as p
$$;
comment on function charger_energy(text, timestamptz, timestamptz) is
'AC and DC (kWh) of one charger (meter) while a vehicle drew from it alone in [from, to); for the schema bi';

grant execute on function
cut_parts(tstzrange, interval), meter_raw_hours(text, timestamptz, timestamptz),
charger_energy(text, timestamptz, timestamptz)
to fleetwatt_bi;

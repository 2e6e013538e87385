-- Efficiency alerts: the rule, and what it says of each vehicle-meter pair.

create or replace function alert_rule()
returns table (
    is_on boolean,
    window_length interval,
    threshold double precision,
    close_margin double precision,
    fault_tolerance double precision,
    least_kwh double precision,
    least_coverage double precision,
    reading_interval_s double precision,
    stale_after interval
)
language sql
stable
set search_path = pg_catalog, public, pg_temp
as $$
    select
        setting('alerts', 1) <> 0,
        setting('alert_window_hours', 24) * interval '1 hour',
        setting('efficiency_threshold', 0.85),
        setting('alert_close_margin', 0.02),
        setting('alert_fault_tolerance', 0.02),
        setting('alert_least_kwh', 5),
        setting('alert_least_coverage', 0.8),
        setting('alert_reading_interval_s', 60),
        setting('alert_stale_hours', 168) * interval '1 hour'
$$;
comment on function alert_rule() is 'The settings that alerts are evaluated by, with their defaults';

-- PostgreSQL refuses to multiply or divide to less than the smallest number there is: one device that sends
-- 5e-324 kWh must not end the evaluation of the fleet. (This and the rule name everything in full instead of pinning
-- their search_path, which would cost more for each pair than all the rest.)
create or replace function without_dust(figure double precision)
returns double precision
language sql
immutable
parallel safe
as $$
    select case when figure < 1e-6 then 0 else figure end
$$;
comment on function without_dust(double precision) is 'A figure, or zero where it is under a millionth';

-- What a pair is to be, given what it is now: 'none', 'low_efficiency' or 'data_fault'; null where nothing can
-- be told, so that everything stays as it is.
--
-- Missing readings never speak against a charger, nor for it. Where a share of the readings is missing, DC/AC may
-- be anything from the ratio with the missing AC filled in (the lowest) to the ratio with the missing DC filled in
-- (the highest), each at the mean of what is there. An alert opens only if both lie on the wrong side, and closes
-- only if both lie on the right one. With all readings there, both are DC/AC.
--
-- It never flaps: low_efficiency opens under the threshold and closes at threshold + margin (at most 1); data_fault
-- opens over 1 + tolerance and closes at 1. In between, what is open stays open and what is not stays closed.
create or replace function alert_verdict(
    present text,
    kwh_ac double precision,
    kwh_dc double precision,
    meter_coverage double precision,
    vehicle_coverage double precision,
    threshold double precision,
    close_margin double precision,
    fault_tolerance double precision,
    least_kwh double precision,
    least_coverage double precision
)
returns text
language sql
immutable
parallel safe
as $$
    select
        case
            when told.enough is not true then null
            when told.lowest_dc > (1 + fault_tolerance) * told.ac then 'data_fault'
            when told.dc < threshold * told.highest_ac then 'low_efficiency'
            when present = 'low_efficiency' and told.lowest_dc < least(threshold + close_margin, 1) * told.ac
                then 'low_efficiency'
            when present = 'data_fault' and told.dc > told.highest_ac then 'data_fault'
            else 'none'
        end
    from (
        select
            whole.ac,
            whole.dc,
            -- Multiplied instead of divided, so that a meter that counts nothing at all needs no case of its own.
            whole.dc * public.without_dust(meter_coverage) as lowest_dc,
            whole.ac * public.without_dust(vehicle_coverage) as highest_ac,
            whole.ac + whole.dc is not null
            and greatest(kwh_ac, kwh_dc) >= least_kwh
            and meter_coverage >= least_coverage
            and vehicle_coverage >= least_coverage as enough
        from (select public.without_dust(kwh_ac) as ac, public.without_dust(kwh_dc) as dc) as whole
    ) as told
$$;
comment on function alert_verdict(
    text, double precision, double precision, double precision, double precision,
    double precision, double precision, double precision, double precision, double precision
) is
'The rule of efficiency alerts: what a pair is and its energy give what it is to be; null where nothing can be told';

create or replace function judge_pairs(window_from timestamptz, window_to timestamptz)
returns table (
    alert_id bigint,
    vehicle_id text,
    meter_id text,
    present text,
    verdict text,
    kwh_ac double precision,
    kwh_dc double precision,
    ratio double precision,
    meter_coverage double precision,
    vehicle_coverage double precision
)
language sql
stable
set search_path = pg_catalog, public, pg_temp
as $$
    with measured as (
        select
            p.vehicle_id,
            p.meter_id,
            without_dust(p.kwh_ac) as kwh_ac,
            without_dust(p.kwh_dc) as kwh_dc,
            without_dust(p.kwh_dc) / nullif(without_dust(p.kwh_ac), 0) as ratio,
            least(p.meter_readings * r.reading_interval_s / nullif(p.connected_s, 0), 1) as meter_coverage,
            least(p.vehicle_readings * r.reading_interval_s / nullif(p.connected_s, 0), 1) as vehicle_coverage
        from pair_energy(window_from, window_to) as p
        cross join alert_rule() as r
    )

    select
        a.alert_id,
        coalesce(m.vehicle_id, a.vehicle_id),
        coalesce(m.meter_id, a.meter_id),
        a.kind,
        alert_verdict(
            a.kind, m.kwh_ac, m.kwh_dc, m.meter_coverage, m.vehicle_coverage,
            r.threshold, r.close_margin, r.fault_tolerance, r.least_kwh, r.least_coverage
        ),
        m.kwh_ac,
        m.kwh_dc,
        m.ratio,
        m.meter_coverage,
        m.vehicle_coverage
    from measured as m
    full join (select * from efficiency_alert where closed_at is null) as a
        on m.vehicle_id = a.vehicle_id and m.meter_id = a.meter_id
    cross join alert_rule() as r
$$;
comment on function judge_pairs(timestamptz, timestamptz) is
'What the rule says of each vehicle-meter pair over [from, to), beside its open alert: why there is one, or none';

grant execute on function alert_rule(), judge_pairs(timestamptz, timestamptz) to fleetwatt_service;

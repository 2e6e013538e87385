-- Charging sessions with the energy of each.

-- name: session_exists
-- Whether there is a session of this id.
select count(*) > 0 as known
from charging_session
where session_id = %(session_id)s;

-- name: sessions_with_energy
-- A page of a vehicle's or a meter's sessions (the other one is null) that touch a span, newest start first, after one
-- of them. Of a session that goes on, what has been counted until now.
with own as materialized (
    -- All of the device: in the index of their order are those of every device, and a page would go through them.
    select session_id, vehicle_id, meter_id, during
    from charging_session
    where vehicle_id = %(vehicle_id)s and during && tstzrange(%(window_from)s, %(window_to)s, '[)')
    union all
    select session_id, vehicle_id, meter_id, during
    from charging_session
    where meter_id = %(meter_id)s and during && tstzrange(%(window_from)s, %(window_to)s, '[)')
),

page as materialized (
    select
        o.session_id,
        o.vehicle_id,
        o.meter_id,
        lower(o.during) as started_at,
        upper(o.during) as ended_at
    from own as o
    where
        %(after_id)s::text is null
        or (lower(o.during), o.session_id)
        < (select lower(a.during), a.session_id from charging_session as a where a.session_id = %(after_id)s)
    order by lower(o.during) desc, o.session_id desc
    limit %(page_size)s
)

select
    p.session_id,
    p.vehicle_id,
    p.meter_id,
    p.started_at,
    p.ended_at,
    e.kwh_metered,
    e.kwh_ac,
    e.kwh_dc,
    e.meter_readings,
    e.vehicle_readings
from page as p
inner join session_energy(array(select g.session_id from page as g), now()) as e on p.session_id = e.session_id
order by p.started_at desc, p.session_id desc;

-- Charging sessions: their audit trail, and standing assignments.

-- Writes one row of the trail for each change of a session. Its owner may write the trail, whoever changes.
create or replace function log_session_change()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    did text;
begin
    if tg_op = 'INSERT' then
        did := case when upper_inf(new.during) then 'started' else 'recorded' end;
    elsif tg_op = 'DELETE' then
        did := 'deleted';
    elsif
        (old.vehicle_id, old.meter_id, old.during) is not distinct from (new.vehicle_id, new.meter_id, new.during)
    then
        return null;
    elsif
        (old.vehicle_id, old.meter_id, lower(old.during))
        is distinct from (new.vehicle_id, new.meter_id, lower(new.during))
    then
        did := 'corrected';
    elsif upper_inf(old.during) then
        did := 'ended';
    elsif upper_inf(new.during) then
        did := 'reopened';
    else
        did := 'corrected';
    end if;
    insert into session_change (
        session_id, action, source,
        vehicle_before, meter_before, started_before, ended_before,
        vehicle_after, meter_after, started_after, ended_after
    )
    values (
        coalesce(new.session_id, old.session_id), did,
        coalesce(nullif(current_setting('fleetwatt.source', true), ''), 'sql'),
        old.vehicle_id, old.meter_id, lower(old.during), upper(old.during),
        new.vehicle_id, new.meter_id, lower(new.during), upper(new.during)
    );
    if tg_op <> 'DELETE' then
        insert into session_edge_due (session_id) values (new.session_id);
    end if;
    -- Where only its ends moved, what lies between them is as it was.
    insert into balance_due (vehicle_id, during)
    select old.vehicle_id, d.span
    from unnest(
        tstzmultirange(old.during) - case
            when (old.vehicle_id, old.meter_id) = (new.vehicle_id, new.meter_id) then tstzmultirange(new.during)
            else '{}'
        end
    ) as d (span)
    union all
    select new.vehicle_id, d.span
    from unnest(
        tstzmultirange(new.during) - case
            when (old.vehicle_id, old.meter_id) = (new.vehicle_id, new.meter_id) then tstzmultirange(old.during)
            else '{}'
        end
    ) as d (span);
    return null;
end
$$;

comment on function log_session_change() is
'Trigger: writes each change of a charging session to session_change, with the source that fleetwatt.source names';

create or replace trigger session_change
after insert or update or delete on charging_session
for each row execute function log_session_change();

-- Makes a meter the vehicle's until further notice, from a moment on, and ends what was its until then.
-- Outcomes: assigned, ended (no meter wanted), unchanged, started_later (nothing changed: the session that is
-- given started too late to be ended then), unknown (no meter wanted, and nobody ever heard of the vehicle).
-- Raises exclusion_violation, and changes nothing, when the meter is taken at some time from then on.
create or replace function assign_meter(
    wanted_vehicle text, wanted_meter text, assigned_from timestamptz
)
returns table (
    outcome text,
    session_id text,
    vehicle_id text,
    meter_id text,
    started_at timestamptz,
    ended_at timestamptz
)
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
declare
    moment timestamptz;
    kept charging_session;
    late charging_session;
    changed bigint;
begin
    -- One assignment of a vehicle at a time; the moment of "now" is that of its turn.
    perform pg_advisory_xact_lock(hashtextextended('vehicle ' || wanted_vehicle, 0));
    perform set_config('fleetwatt.source', 'standing assignment', true);
    moment := coalesce(assigned_from, clock_timestamp());

    perform from charging_session as s
    where s.vehicle_id = wanted_vehicle and upper_inf(s.during)
    order by s.meter_id
    for update;

    select s.* into kept from charging_session as s
    where s.vehicle_id = wanted_vehicle and upper_inf(s.during) and s.meter_id = wanted_meter;

    -- What is kept may have started before, but not later than it was asked for.
    select s.* into late from charging_session as s
    where
        s.vehicle_id = wanted_vehicle
        and upper_inf(s.during)
        and case
            when s.meter_id = wanted_meter then lower(s.during) > assigned_from
            else lower(s.during) >= moment
        end
    order by s.during
    limit 1;
    if found then
        return query select 'started_later', late.session_id, late.vehicle_id, late.meter_id,
            lower(late.during), upper(late.during);
        return;
    end if;

    update charging_session as s
    set during = tstzrange(lower(s.during), moment, '[)'), updated_at = now()
    where s.vehicle_id = wanted_vehicle and upper_inf(s.during) and s.meter_id is distinct from wanted_meter;
    get diagnostics changed = row_count;

    if wanted_meter is null then
        return query select
            case
                when changed > 0 then 'ended'
                when
                    exists (select from charging_session as s where s.vehicle_id = wanted_vehicle)
                    or exists (select from vehicle_state as v where v.vehicle_id = wanted_vehicle)
                    then 'unchanged'
                else 'unknown'
            end,
            null::text, wanted_vehicle, null::text, null::timestamptz, null::timestamptz;
        return;
    end if;
    if kept.session_id is not null then
        return query select case when changed > 0 then 'ended' else 'unchanged' end,
            kept.session_id, kept.vehicle_id, kept.meter_id, lower(kept.during), upper(kept.during);
        return;
    end if;

    -- Unlike a plain insert, this never deadlocks with another one that wants the meter.
    return query insert into charging_session as s (vehicle_id, meter_id, during)
    values (wanted_vehicle, wanted_meter, tstzrange(moment, null, '[)'))
    on conflict do nothing
    returning 'assigned', s.session_id, s.vehicle_id, s.meter_id, lower(s.during), upper(s.during);
    if not found then
        raise exception 'meter % is taken', wanted_meter using errcode = 'exclusion_violation';
    end if;
end
$$;

comment on function assign_meter(text, text, timestamptz) is
'Ends the open sessions of a vehicle at a moment (now, if null) and opens one on a meter (none, if null)';

grant execute on function assign_meter(text, text, timestamptz) to fleetwatt_service;

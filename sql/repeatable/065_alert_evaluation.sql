-- Efficiency alerts: the evaluation after each refresh, which opens, follows and closes them.

-- Each opening and closing goes into the outbox, whoever caused it, in the same transaction.
create or replace function record_alert_event()
returns trigger
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
begin
    if tg_op = 'INSERT' or (old.closed_at is null and new.closed_at is not null) then
        insert into alert_event (alert_id, vehicle_id, action, alert)
        values (
            new.alert_id, new.vehicle_id,
            case tg_op when 'INSERT' then 'opened' else 'closed' end,
            to_jsonb(new)
        );
        perform pg_notify('fleetwatt_alerts', '');
    end if;
    return null;
end
$$;
comment on function record_alert_event() is 'Trigger of efficiency_alert: writes alert_event and wakes up who delivers';

create or replace trigger efficiency_alert_events
after insert or update of closed_at on efficiency_alert
for each row execute function record_alert_event();

-- What is the same stays untouched, so that evaluating again and again leaves no dead rows behind.
create or replace function measure_alert(
    wanted bigint,
    verdict text,
    since timestamptz,
    until timestamptz,
    kwh_ac double precision,
    kwh_dc double precision,
    meter_coverage double precision,
    vehicle_coverage double precision
)
returns void
language sql
set search_path = pg_catalog, public, pg_temp
as $$
    update efficiency_alert as a
    set
        window_from = since,
        window_to = until,
        kwh_ac = measure_alert.kwh_ac,
        kwh_dc = measure_alert.kwh_dc,
        meter_coverage = measure_alert.meter_coverage,
        vehicle_coverage = measure_alert.vehicle_coverage,
        ratio_latest = now_is.ratio,
        ratio_worst = case
            when a.kind = 'low_efficiency' then least(a.ratio_worst, now_is.ratio)
            -- Without any AC the ratio is null and worse than every number.
            when a.ratio_worst is not null and now_is.ratio is not null then greatest(a.ratio_worst, now_is.ratio)
        end,
        evaluated_until = until,
        closed_at = case when a.kind <> verdict then now() end,
        close_reason = case when a.kind <> verdict then case verdict when 'none' then 'recovered' else 'changed' end end
    from (select measure_alert.kwh_dc / nullif(measure_alert.kwh_ac, 0) as ratio) as now_is
    where
        a.alert_id = wanted
        and (
            a.kind <> verdict
            or (a.window_from, a.window_to, a.kwh_ac, a.kwh_dc, a.meter_coverage, a.vehicle_coverage)
            is distinct from (
                since, until, measure_alert.kwh_ac, measure_alert.kwh_dc,
                measure_alert.meter_coverage, measure_alert.vehicle_coverage
            )
        )
$$;
comment on function measure_alert(
    bigint, text, timestamptz, timestamptz, double precision, double precision, double precision, double precision
) is
'Gives an open alert its newest figures, and closes it if the verdict is another; a step of evaluate_alerts';

-- Nothing can be told: too little energy or too few readings in the window. A charger that was not used is no better
-- than before, so the alert stays. It closes when its pair has no session left in the window that it was judged by
-- (a correction took it away), and when nothing could be told for so long that it says nothing about today.
create or replace function age_alert(wanted bigint, until timestamptz, stale_after interval)
returns void
language sql
set search_path = pg_catalog, public, pg_temp
as $$
    update efficiency_alert as a
    set
        evaluated_until = until,
        closed_at = case when close_for.reason is not null then now() end,
        close_reason = close_for.reason
    from (
        select
            b.alert_id,
            case
                when not exists (
                    select from charging_session as s
                    where
                        s.vehicle_id = b.vehicle_id
                        and s.meter_id = b.meter_id
                        and s.during && tstzrange(b.window_from, b.window_to)
                ) then 'withdrawn'
                when until >= b.window_to + stale_after then 'stale'
            end as reason
        from efficiency_alert as b
        where b.alert_id = wanted
    ) as close_for
    where
        a.alert_id = close_for.alert_id
        and (a.evaluated_until <> until or close_for.reason is not null)
$$;
comment on function age_alert(bigint, timestamptz, interval) is
'Keeps an open alert of which nothing can be told, or closes it as withdrawn or stale; a step of evaluate_alerts';

-- All that an evaluation depends on, but for sessions: hours that were rolled up, also anew, and settings. Raw rows
-- at the edges of sessions lie in finished hours, so a late one makes its hour rolled up anew.
create or replace function alert_basis()
returns text
language sql
stable
set search_path = pg_catalog, public, pg_temp
as $$
    select jsonb_build_object(
        'rollups', (
            select jsonb_agg(jsonb_build_array(p.stream, p.refreshed_until, p.refreshed_hours, p.kept_hours) order by p.stream)
            from rollup_progress as p
        ),
        'rule', (select to_jsonb(r) from alert_rule() as r)
    )::text
$$;
comment on function alert_basis() is
'What evaluate_alerts would work on, in words to compare: how far the rollups are, and the settings; not the sessions';

create or replace function alerts_are_current(basis text)
returns boolean
language sql
stable
set search_path = pg_catalog, public, pg_temp
as $$
    select exists (
        select
        from alert_evaluation as e
        where
            e.basis = alerts_are_current.basis
            and not exists (
                select
                from session_change as c
                where c.changed_by >= pg_snapshot_xmin(e.seen) and not pg_visible_in_snapshot(c.changed_by, e.seen)
            )
    )
$$;
comment on function alerts_are_current(text) is
'Whether the last evaluation had the same basis and saw every change of a session, so that another finds the same';

-- Evaluates the newest window of finished hours. Twice gives the same as once, so where nothing has changed nothing is
-- done: a fleet's pairs take seconds, and a refresh runs every minute. A second one at the same time waits.
-- The loop runs over pairs that have an alert or are to get one; what is asked about the fleet is one statement.
create or replace function evaluate_alerts()
returns void
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    rule record;
    since timestamptz;
    until timestamptz;
    pair record;
    basis text;
    seen pg_snapshot;
begin
    -- 'fl' and 'al': any pair of numbers will do as long as nothing else on the database uses it.
    perform pg_advisory_xact_lock(26220, 24940);
    select * into rule from alert_rule();
    select min(p.refreshed_until) into until from rollup_progress as p;
    if not rule.is_on or until is null or not isfinite(until) then
        return;
    end if;
    -- Both are told before the pairs are judged: what changes meanwhile is judged once more.
    seen := pg_current_snapshot();
    basis := alert_basis();
    if alerts_are_current(basis) then
        return;
    end if;
    since := until - rule.window_length;
    for pair in
        select *
        from judge_pairs(since, until) as j
        where j.alert_id is not null or j.verdict in ('low_efficiency', 'data_fault')
        order by j.vehicle_id, j.meter_id
    loop
        if pair.alert_id is not null and pair.verdict is null then
            perform age_alert(pair.alert_id, until, rule.stale_after);
        elsif pair.alert_id is not null then
            perform measure_alert(
                pair.alert_id, pair.verdict, since, until,
                pair.kwh_ac, pair.kwh_dc, pair.meter_coverage, pair.vehicle_coverage
            );
        end if;
        if pair.verdict <> 'none' and pair.verdict is distinct from pair.present then
            insert into efficiency_alert (
                vehicle_id, meter_id, kind, window_from, window_to, kwh_ac, kwh_dc, meter_coverage,
                vehicle_coverage, ratio_opened, ratio_worst, ratio_latest, threshold, evaluated_until
            )
            values (
                pair.vehicle_id, pair.meter_id, pair.verdict, since, until, pair.kwh_ac, pair.kwh_dc,
                pair.meter_coverage, pair.vehicle_coverage, pair.ratio, pair.ratio, pair.ratio,
                case pair.verdict when 'data_fault' then 1 + rule.fault_tolerance else rule.threshold end,
                until
            );
        end if;
    end loop;
    insert into alert_evaluation as e (basis, seen, evaluated_at)
    values (basis, seen, now())
    on conflict (only_row) do update
    set basis = excluded.basis, seen = excluded.seen, evaluated_at = excluded.evaluated_at;
end
$$;
comment on function evaluate_alerts() is
'Opens, follows and closes efficiency alerts by the newest window of finished hours; called after each refresh';

-- Efficiency alerts, and the outbox from which their openings and closings are delivered.

set local lock_timeout = '10s';
set local statement_timeout = '10min';

set local role fleetwatt_owner;

create table efficiency_alert (
    alert_id bigint generated always as identity primary key,
    vehicle_id text collate "C" not null,
    meter_id text collate "C" not null,
    kind text collate "C" not null check (kind in ('low_efficiency', 'data_fault')),
    opened_at timestamptz not null default now(),
    closed_at timestamptz,
    close_reason text collate "C" check (close_reason in ('recovered', 'changed', 'withdrawn', 'stale')),
    window_from timestamptz not null,
    window_to timestamptz not null,
    kwh_ac double precision not null,
    kwh_dc double precision not null,
    meter_coverage double precision not null,
    vehicle_coverage double precision not null,
    ratio_opened double precision,
    ratio_worst double precision,
    ratio_latest double precision,
    threshold double precision not null,
    evaluated_until timestamptz not null,
    constraint efficiency_alert_closed_for_a_reason check ((closed_at is null) = (close_reason is null))
) with (fillfactor = 70);
-- One open alert a pair, whatever its kind and whoever evaluates.
create unique index efficiency_alert_open on efficiency_alert (vehicle_id, meter_id) where closed_at is null;
create index efficiency_alert_vehicle on efficiency_alert (vehicle_id, alert_id);
create index efficiency_alert_meter on efficiency_alert (meter_id, alert_id);
comment on table efficiency_alert is
'Vehicle-meter pairs whose DC/AC over the rolling window was not as it should be; written by evaluate_alerts alone';
comment on column efficiency_alert.alert_id is 'Running number; a higher one was opened later';
comment on column efficiency_alert.vehicle_id is 'The vehicle that was charged';
comment on column efficiency_alert.meter_id is 'The meter that billed the energy';
comment on column efficiency_alert.kind is
'low_efficiency: DC/AC under the threshold; data_fault: more arrived than was billed, so the data are wrong';
comment on column efficiency_alert.opened_at is 'When it was opened';
comment on column efficiency_alert.closed_at is 'When it was closed; null while it is open';
comment on column efficiency_alert.close_reason is
'recovered, changed (to the other kind), withdrawn (sessions corrected away), stale (nothing told for long)';
comment on column efficiency_alert.window_from is 'Start of the newest window that could tell something';
comment on column efficiency_alert.window_to is 'End of that window, excluded';
comment on column efficiency_alert.kwh_ac is 'AC energy billed in that window, kWh';
comment on column efficiency_alert.kwh_dc is 'DC energy delivered in that window, kWh';
comment on column efficiency_alert.meter_coverage is 'Share of the expected meter readings that was there, 0 to 1';
comment on column efficiency_alert.vehicle_coverage is 'Share of the expected vehicle readings that was there, 0 to 1';
comment on column efficiency_alert.ratio_opened is 'DC/AC when it was opened; null without any AC';
comment on column efficiency_alert.ratio_worst is
'The lowest DC/AC seen, of a data fault the highest; null if that was without any AC';
comment on column efficiency_alert.ratio_latest is
'DC/AC in the newest window that could tell something; null without any AC';
comment on column efficiency_alert.threshold is 'What DC/AC was held against when it was opened';
comment on column efficiency_alert.evaluated_until is
'End of the newest window evaluated, whether it could tell something or not';

create table alert_event (
    event_id bigint generated always as identity primary key,
    event_key uuid not null unique default gen_random_uuid(),
    alert_id bigint not null references efficiency_alert,
    vehicle_id text collate "C" not null,
    action text collate "C" not null check (action in ('opened', 'closed')),
    occurred_at timestamptz not null default now(),
    alert jsonb not null,
    mqtt_delivered_at timestamptz,
    webhook_state text collate "C" not null default 'pending'
    check (webhook_state in ('pending', 'delivered', 'failed')),
    webhook_tries bigint not null default 0,
    webhook_next_at timestamptz not null default now(),
    webhook_error text
) with (fillfactor = 70);
create index alert_event_alert on alert_event (alert_id);
create index alert_event_mqtt on alert_event (vehicle_id, event_id) where mqtt_delivered_at is null;
create index alert_event_webhook on alert_event (vehicle_id, event_id) where webhook_state = 'pending';
create index alert_event_failed on alert_event (event_id) where webhook_state = 'failed';
create index alert_event_occurred on alert_event (occurred_at);
comment on table alert_event is
'Outbox: each opening and closing of an alert, written in the same transaction, and how far its delivery is';
comment on column alert_event.event_id is 'Running number; the events of a vehicle are delivered in this order';
comment on column alert_event.event_key is 'Tells the event from every other, by which a receiver finds repeats';
comment on column alert_event.alert_id is 'The alert';
comment on column alert_event.vehicle_id is 'The alert''s vehicle';
comment on column alert_event.action is 'opened or closed; a change of kind closes one alert and opens another';
comment on column alert_event.occurred_at is 'When it happened';
comment on column alert_event.alert is 'The alert''s row as it was then';
comment on column alert_event.mqtt_delivered_at is
'When the broker acknowledged the state of the vehicle, this event included; null until then';
comment on column alert_event.webhook_state is
'pending, delivered (answered with 2xx), failed (given up; set it to pending again to have it tried anew)';
comment on column alert_event.webhook_tries is 'Times it was posted so far';
comment on column alert_event.webhook_next_at is 'Not posted before this time';
comment on column alert_event.webhook_error is 'What went wrong the last time';

create table alert_evaluation (
    only_row boolean primary key default true check (only_row),
    basis text not null,
    seen pg_snapshot not null,
    evaluated_at timestamptz not null
);
comment on table alert_evaluation is
'What the last evaluation of alerts was based on; where that is still so, the next one would find the same';
comment on column alert_evaluation.only_row is 'There is one row at most';
comment on column alert_evaluation.basis is 'How far the rollups were, how much they had rolled up, and the settings';
comment on column alert_evaluation.seen is 'Transactions whose changes of sessions it certainly saw';
comment on column alert_evaluation.evaluated_at is 'When it began';

-- The service reads both and keeps the books of delivery; alerts and events are the database's own to write.
grant select on efficiency_alert, alert_event to fleetwatt_service;
grant update (
    mqtt_delivered_at, webhook_state, webhook_tries, webhook_next_at, webhook_error
) on alert_event to fleetwatt_service;

reset role;

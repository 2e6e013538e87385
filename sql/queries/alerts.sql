-- Efficiency alerts: lists, and the books of their delivery. The database opens and closes them by itself.

-- name: list_alerts
-- A page of alerts that were open at some time in a span, newest first, after the last one of the page before.
select *
from efficiency_alert
where
    (%(is_open)s::bool is null or %(is_open)s = (closed_at is null))
    and (%(vehicle_id)s::text is null or vehicle_id = %(vehicle_id)s)
    and (%(meter_id)s::text is null or meter_id = %(meter_id)s)
    and (%(alert_kind)s::text is null or kind = %(alert_kind)s)
    and (%(window_to)s::timestamptz is null or opened_at < %(window_to)s)
    and (%(window_from)s::timestamptz is null or closed_at is null or closed_at > %(window_from)s)
    and (%(after_alert)s::bigint is null or alert_id < %(after_alert)s)
order by alert_id desc
limit %(page_size)s;

-- name: count_open_alerts
-- How many alerts are open, by kind.
select kind, count(*) as alerts
from efficiency_alert
where closed_at is null
group by kind;

-- name: count_undelivered_events
-- Events that wait for a channel, and those that the webhook was given up on.
select
    (select count(*) from alert_event where mqtt_delivered_at is null) as mqtt_pending,
    (select count(*) from alert_event where webhook_state = 'pending') as webhook_pending,
    (select count(*) from alert_event where webhook_state = 'failed') as webhook_failed;

-- name: try_to_deliver
-- Takes the lock of a channel (1 MQTT, 2 webhook), or not: one process at a time delivers, as long as it is connected.
select pg_try_advisory_lock(26220, %(channel)s::int) as taken;

-- name: listen_for_alert_events
-- Wakes up on new events; only a hint, whoever delivers also looks from time to time.
listen fleetwatt_alerts;

-- name: vehicles_to_announce
-- Vehicles with events that the broker has not acknowledged yet, and these events; the longest waiting first.
select vehicle_id, array_agg(event_id) as event_ids
from alert_event
where mqtt_delivered_at is null
group by vehicle_id
order by min(event_id)
limit %(page_size)s;

-- name: vehicles_announced_lately
-- Vehicles whose retained state matters: those with an open alert, and those with an event since a moment.
select vehicle_id
from efficiency_alert
where closed_at is null
union
select vehicle_id
from alert_event
where occurred_at >= %(since)s
order by vehicle_id;

-- name: open_alerts_of
-- The open alerts of some vehicles, the oldest first.
select *
from efficiency_alert
where closed_at is null and vehicle_id = any(%(vehicle_ids)s)
order by alert_id;

-- name: note_announced
-- Notes that the broker acknowledged a state which includes these events.
update alert_event
set mqtt_delivered_at = now()
where event_id = any(%(event_ids)s) and mqtt_delivered_at is null;

-- name: events_to_post
-- The oldest pending event of each vehicle, where its time has come: a vehicle's events are posted in their order.
select e.event_id, e.event_key, e.action, e.occurred_at, e.alert, e.webhook_tries
from (
    select distinct on (vehicle_id) *
    from alert_event
    where webhook_state = 'pending'
    order by vehicle_id, event_id
) as e
where e.webhook_next_at <= now()
order by e.event_id
limit %(page_size)s;

-- name: note_posted
-- Notes what a try to post an event came to, and, if it is to be tried again, when.
update alert_event
set
    webhook_state = %(webhook_state)s,
    webhook_tries = webhook_tries + 1,
    webhook_next_at = now() + make_interval(secs => %(pause_s)s),
    webhook_error = %(webhook_error)s
where event_id = %(event_id)s;

-- name: give_up_old_events
-- Gives up on events that are too old to be of use, such as those from long before the webhook was set.
update alert_event
set webhook_state = 'failed', webhook_error = 'too old'
where webhook_state = 'pending' and occurred_at < now() - make_interval(hours => %(max_age_hours)s)
returning event_id;

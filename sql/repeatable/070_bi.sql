-- What BI tools see: the schema bi. Names, columns and their order are a promise: columns are only ever added, at
-- the end, and nothing is renamed. docs/bi.md says what each view is for, with queries.
--
-- A view reads its tables with its owner's rights, but calls functions with those of the role that asks. So the
-- functions in these views are PostgreSQL's, TimescaleDB's, or of those few that 072 and 074 grant.

create or replace view bi.meter_hourly as
select
    meter_id,
    hour,
    readings,
    kwh_ac,
    kwh_ac_max,
    voltage_sum / readings as voltage_avg_v,
    voltage_min as voltage_min_v,
    voltage_max as voltage_max_v
from meter_hourly;
comment on view bi.meter_hourly is
'AC by meter and hour, whether or not a session was on; the hours in progress included';
comment on column bi.meter_hourly.meter_id is 'The meter''s id';
comment on column bi.meter_hourly.hour is 'Start of the hour, UTC';
comment on column bi.meter_hourly.readings is 'Readings in the hour';
comment on column bi.meter_hourly.kwh_ac is 'AC energy drawn from the grid, kWh';
comment on column bi.meter_hourly.kwh_ac_max is 'Largest AC energy of one reading, kWh';
comment on column bi.meter_hourly.voltage_avg_v is 'Mean of the readings'' voltages, V';
comment on column bi.meter_hourly.voltage_min_v is 'Lowest voltage of a reading, V';
comment on column bi.meter_hourly.voltage_max_v is 'Highest voltage of a reading, V';

create or replace view bi.meter_daily as
select
    meter_id,
    day,
    readings,
    kwh_ac,
    kwh_ac_max,
    voltage_sum / readings as voltage_avg_v,
    voltage_min as voltage_min_v,
    voltage_max as voltage_max_v
from meter_daily;
comment on view bi.meter_daily is
'AC by meter and day (UTC), whether or not a session was on; the day in progress included';
comment on column bi.meter_daily.meter_id is 'The meter''s id';
comment on column bi.meter_daily.day is 'Start of the day, UTC';
comment on column bi.meter_daily.readings is 'Readings in the day';
comment on column bi.meter_daily.kwh_ac is 'AC energy drawn from the grid, kWh';
comment on column bi.meter_daily.kwh_ac_max is 'Largest AC energy of one reading, kWh';
comment on column bi.meter_daily.voltage_avg_v is 'Mean of the readings'' voltages, V';
comment on column bi.meter_daily.voltage_min_v is 'Lowest voltage of a reading, V';
comment on column bi.meter_daily.voltage_max_v is 'Highest voltage of a reading, V';

create or replace view bi.vehicle_hourly as
select
    vehicle_id,
    hour,
    readings,
    kwh_dc,
    kwh_dc_max,
    battery_temp_sum / readings as battery_temp_avg_c,
    battery_temp_min as battery_temp_min_c,
    battery_temp_max as battery_temp_max_c,
    soc_first as soc_first_percent,
    soc_last as soc_last_percent,
    soc_min as soc_min_percent,
    soc_max as soc_max_percent
from vehicle_hourly;
comment on view bi.vehicle_hourly is
'DC, battery temperature and SoC by vehicle and hour; the hours in progress included';
comment on column bi.vehicle_hourly.vehicle_id is 'The vehicle''s id';
comment on column bi.vehicle_hourly.hour is 'Start of the hour, UTC';
comment on column bi.vehicle_hourly.readings is 'Readings in the hour';
comment on column bi.vehicle_hourly.kwh_dc is 'DC energy that reached the battery, kWh';
comment on column bi.vehicle_hourly.kwh_dc_max is 'Largest DC energy of one reading, kWh';
comment on column bi.vehicle_hourly.battery_temp_avg_c is 'Mean battery temperature, degrees Celsius';
comment on column bi.vehicle_hourly.battery_temp_min_c is 'Lowest battery temperature, degrees Celsius';
comment on column bi.vehicle_hourly.battery_temp_max_c is 'Highest battery temperature, degrees Celsius';
comment on column bi.vehicle_hourly.soc_first_percent is 'First state of charge, percent';
comment on column bi.vehicle_hourly.soc_last_percent is 'Last state of charge, percent';
comment on column bi.vehicle_hourly.soc_min_percent is 'Lowest state of charge, percent';
comment on column bi.vehicle_hourly.soc_max_percent is 'Highest state of charge, percent';

create or replace view bi.vehicle_daily as
select
    vehicle_id,
    day,
    readings,
    kwh_dc,
    kwh_dc_max,
    battery_temp_sum / readings as battery_temp_avg_c,
    battery_temp_min as battery_temp_min_c,
    battery_temp_max as battery_temp_max_c,
    soc_first as soc_first_percent,
    soc_last as soc_last_percent,
    soc_min as soc_min_percent,
    soc_max as soc_max_percent
from vehicle_daily;
comment on view bi.vehicle_daily is
'DC, battery temperature and SoC by vehicle and day (UTC); the day in progress included';
comment on column bi.vehicle_daily.vehicle_id is 'The vehicle''s id';
comment on column bi.vehicle_daily.day is 'Start of the day, UTC';
comment on column bi.vehicle_daily.readings is 'Readings in the day';
comment on column bi.vehicle_daily.kwh_dc is 'DC energy that reached the battery, kWh';
comment on column bi.vehicle_daily.kwh_dc_max is 'Largest DC energy of one reading, kWh';
comment on column bi.vehicle_daily.battery_temp_avg_c is 'Mean battery temperature, degrees Celsius';
comment on column bi.vehicle_daily.battery_temp_min_c is 'Lowest battery temperature, degrees Celsius';
comment on column bi.vehicle_daily.battery_temp_max_c is 'Highest battery temperature, degrees Celsius';
comment on column bi.vehicle_daily.soc_first_percent is 'First state of charge, percent';
comment on column bi.vehicle_daily.soc_last_percent is 'Last state of charge, percent';
comment on column bi.vehicle_daily.soc_min_percent is 'Lowest state of charge, percent';
comment on column bi.vehicle_daily.soc_max_percent is 'Highest state of charge, percent';

create or replace view bi.meter_latest as
select
    meter_id,
    recorded_at,
    greatest(extract(epoch from now() - recorded_at), 0)::double precision as silent_s,
    kwh_consumed_ac as kwh_ac,
    voltage as voltage_v,
    updated_at
from meter_state;
comment on view bi.meter_latest is 'The newest reading of each meter; one row a meter that ever reported';
comment on column bi.meter_latest.meter_id is 'The meter''s id';
comment on column bi.meter_latest.recorded_at is 'Timestamp of the newest reading';
comment on column bi.meter_latest.silent_s is 'How long ago that was, s';
comment on column bi.meter_latest.kwh_ac is 'AC energy of the newest interval, kWh';
comment on column bi.meter_latest.voltage_v is 'Mean grid voltage of the newest interval, V';
comment on column bi.meter_latest.updated_at is 'When the reading was stored';

create or replace view bi.vehicle_latest as
select
    vehicle_id,
    recorded_at,
    greatest(extract(epoch from now() - recorded_at), 0)::double precision as silent_s,
    soc as soc_percent,
    kwh_delivered_dc as kwh_dc,
    battery_temp as battery_temp_c,
    updated_at
from vehicle_state;
comment on view bi.vehicle_latest is 'The newest reading of each vehicle; one row a vehicle that ever reported';
comment on column bi.vehicle_latest.vehicle_id is 'The vehicle''s id';
comment on column bi.vehicle_latest.recorded_at is 'Timestamp of the newest reading';
comment on column bi.vehicle_latest.silent_s is 'How long ago that was, s';
comment on column bi.vehicle_latest.soc_percent is 'State of charge, percent';
comment on column bi.vehicle_latest.kwh_dc is 'DC energy of the newest interval, kWh';
comment on column bi.vehicle_latest.battery_temp_c is 'Battery temperature, degrees Celsius';
comment on column bi.vehicle_latest.updated_at is 'When the reading was stored';

create or replace view bi.sessions as
select
    session_id,
    vehicle_id,
    meter_id,
    lower(during) as started_at,
    upper(during) as ended_at,
    upper_inf(during) as is_open,
    greatest(extract(epoch from coalesce(upper(during), now()) - lower(during)) / 3600, 0)::double precision
        as duration_h,
    updated_at
from charging_session;
comment on view bi.sessions is
'Which vehicle drew from which meter and when; an open session is a standing assignment or still under way';
comment on column bi.sessions.session_id is 'Id of the session';
comment on column bi.sessions.vehicle_id is 'The vehicle that was charged';
comment on column bi.sessions.meter_id is 'The meter that billed the energy';
comment on column bi.sessions.started_at is 'Start, included';
comment on column bi.sessions.ended_at is 'End, excluded; null while the session is open';
comment on column bi.sessions.is_open is 'Whether the session has no end yet';
comment on column bi.sessions.duration_h is 'Length in hours; of an open session, so far';
comment on column bi.sessions.updated_at is 'When the session was last changed';

create or replace view bi.alerts as
select
    alert_id,
    vehicle_id,
    meter_id,
    kind,
    closed_at is null as is_open,
    opened_at,
    closed_at,
    close_reason,
    (extract(epoch from coalesce(closed_at, now()) - opened_at) / 3600)::double precision as open_h,
    window_from,
    window_to,
    kwh_ac,
    kwh_dc,
    kwh_ac - kwh_dc as kwh_lost,
    ratio_opened as efficiency_ratio_opened,
    ratio_worst as efficiency_ratio_worst,
    ratio_latest as efficiency_ratio,
    threshold
from efficiency_alert;
comment on view bi.alerts is
'Efficiency alerts, open and closed: pairs of vehicle and charger whose DC/AC was not as it should be';
comment on column bi.alerts.alert_id is 'Running number; a higher one was opened later';
comment on column bi.alerts.vehicle_id is 'The vehicle that was charged';
comment on column bi.alerts.meter_id is 'The meter that billed the energy';
comment on column bi.alerts.kind is
'low_efficiency: DC/AC under the threshold; data_fault: more arrived than was billed, so the data are wrong';
comment on column bi.alerts.is_open is 'Whether the alert is open';
comment on column bi.alerts.opened_at is 'When it was opened';
comment on column bi.alerts.closed_at is 'When it was closed; null while it is open';
comment on column bi.alerts.close_reason is
'recovered, changed (to the other kind), withdrawn (sessions corrected away), stale (nothing told for long)';
comment on column bi.alerts.open_h is 'Hours that it was open; of an open one, so far';
comment on column bi.alerts.window_from is 'Start of the newest window that could tell something';
comment on column bi.alerts.window_to is 'End of that window, excluded';
comment on column bi.alerts.kwh_ac is 'AC energy billed in that window, kWh';
comment on column bi.alerts.kwh_dc is 'DC energy delivered in that window, kWh';
comment on column bi.alerts.kwh_lost is 'AC less DC in that window, kWh';
comment on column bi.alerts.efficiency_ratio_opened is 'DC / AC when it was opened; null without any AC';
comment on column bi.alerts.efficiency_ratio_worst is 'The lowest DC / AC seen, of a data fault the highest';
comment on column bi.alerts.efficiency_ratio is 'DC / AC in that window; null without any AC';
comment on column bi.alerts.threshold is 'What DC / AC was held against when it was opened';

create or replace view bi.rollup_freshness as
select
    p.stream,
    p.refreshed_until,
    p.refreshed_at,
    extract(epoch from now() - p.refreshed_at)::double precision as refresh_age_s,
    s.stale_hours,
    s.oldest_stale_hour,
    case p.stream
        when 'meter' then (select max(m.recorded_at) from meter_state as m)
        else (select max(v.recorded_at) from vehicle_state as v)
    end as newest_reading_at
from rollup_progress as p
cross join lateral (
    select
        count(distinct l.hour) as stale_hours,
        min(l.hour) as oldest_stale_hour
    from rollup_stale as l
    where l.stream = p.stream
) as s;
comment on view bi.rollup_freshness is 'How fresh the hourly and daily views are; one row for meters, one for vehicles';
comment on column bi.rollup_freshness.stream is 'meter or vehicle';
comment on column bi.rollup_freshness.refreshed_until is
'Hours before this are rolled up; those since are summed up as you ask';
comment on column bi.rollup_freshness.refreshed_at is 'When a refresh last came to its end';
comment on column bi.rollup_freshness.refresh_age_s is
'How long ago that was, s; more than some minutes needs looking into';
comment on column bi.rollup_freshness.stale_hours is
'Rolled-up hours that late readings touched since; the next refresh takes them in';
comment on column bi.rollup_freshness.oldest_stale_hour is 'The oldest of these hours; null when there are none';
comment on column bi.rollup_freshness.newest_reading_at is 'Timestamp of the newest reading of any device';

-- Rollups as real-time continuous aggregates; the days are built on the hours.

set local lock_timeout = '10s';
set local statement_timeout = '10min';

set local role fleetwatt_owner;

create materialized view meter_hourly
with (timescaledb.continuous, timescaledb.materialized_only = false) as
select
    meter_id,
    time_bucket('1 hour', recorded_at) as hour,
    count(*) as readings,
    sum(kwh_consumed_ac) as kwh_ac,
    max(kwh_consumed_ac) as kwh_ac_max,
    sum(voltage) as voltage_sum,
    min(voltage) as voltage_min,
    max(voltage) as voltage_max
from meter_reading
group by 1, 2
with no data;

create materialized view vehicle_hourly
with (timescaledb.continuous, timescaledb.materialized_only = false) as
select
    vehicle_id,
    time_bucket('1 hour', recorded_at) as hour,
    count(*) as readings,
    sum(kwh_delivered_dc) as kwh_dc,
    max(kwh_delivered_dc) as kwh_dc_max,
    sum(battery_temp) as battery_temp_sum,
    min(battery_temp) as battery_temp_min,
    max(battery_temp) as battery_temp_max,
    min(soc) as soc_min,
    max(soc) as soc_max,
    first(soc, recorded_at) as soc_first,
    last(soc, recorded_at) as soc_last
from vehicle_reading
group by 1, 2
with no data;

create materialized view meter_daily
with (timescaledb.continuous, timescaledb.materialized_only = false) as
select
    meter_id,
    time_bucket('1 day', hour) as day,
    sum(readings)::bigint as readings,
    sum(kwh_ac) as kwh_ac,
    max(kwh_ac_max) as kwh_ac_max,
    sum(voltage_sum) as voltage_sum,
    min(voltage_min) as voltage_min,
    max(voltage_max) as voltage_max
from meter_hourly
group by 1, 2
with no data;

create materialized view vehicle_daily
with (timescaledb.continuous, timescaledb.materialized_only = false) as
select
    vehicle_id,
    time_bucket('1 day', hour) as day,
    sum(readings)::bigint as readings,
    sum(kwh_dc) as kwh_dc,
    max(kwh_dc_max) as kwh_dc_max,
    sum(battery_temp_sum) as battery_temp_sum,
    min(battery_temp_min) as battery_temp_min,
    max(battery_temp_max) as battery_temp_max,
    min(soc_min) as soc_min,
    max(soc_max) as soc_max,
    first(soc_first, hour) as soc_first,
    last(soc_last, hour) as soc_last
from vehicle_hourly
group by 1, 2
with no data;

reset role;

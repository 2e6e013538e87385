-- The tables that the continuous aggregates have replaced, and the views on them.
set local role fleetwatt_owner;
drop view fleetwatt_before.meter_daily, fleetwatt_before.vehicle_daily;
drop view fleetwatt_before.meter_hourly, fleetwatt_before.vehicle_hourly;
drop table fleetwatt_before.meter_hourly_stored;
drop table fleetwatt_before.vehicle_hourly_stored;
drop table fleetwatt_before.meter_daily_stored;
drop table fleetwatt_before.vehicle_daily_stored;
drop schema fleetwatt_before;

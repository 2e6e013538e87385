-- What the rollups mean, whichever edition they live in, and who may read them.
comment on view meter_hourly is
'Readings of each meter by hour, live tail included; a late reading shows after the next refresh';
comment on column meter_hourly.meter_id is 'The meter''s id';
comment on column meter_hourly.hour is
'Start of the hour, UTC; readings count by their timestamp, the end of their interval';
comment on column meter_hourly.readings is 'Readings in the hour';
comment on column meter_hourly.kwh_ac is 'AC energy drawn from the grid, kWh';
comment on column meter_hourly.kwh_ac_max is 'Largest AC energy of one reading, kWh';
comment on column meter_hourly.voltage_sum is 'Sum of the readings'' mean voltages, V; divide by readings';
comment on column meter_hourly.voltage_min is 'Lowest mean voltage of a reading, V';
comment on column meter_hourly.voltage_max is 'Highest mean voltage of a reading, V';
comment on column meter_hourly_stored.meter_id is 'The meter''s id';
comment on column meter_hourly_stored.hour is
'Start of the hour, UTC; readings count by their timestamp, the end of their interval';
comment on column meter_hourly_stored.readings is 'Readings in the hour';
comment on column meter_hourly_stored.kwh_ac is 'AC energy drawn from the grid, kWh';
comment on column meter_hourly_stored.kwh_ac_max is 'Largest AC energy of one reading, kWh';
comment on column meter_hourly_stored.voltage_sum is 'Sum of the readings'' mean voltages, V; divide by readings';
comment on column meter_hourly_stored.voltage_min is 'Lowest mean voltage of a reading, V';
comment on column meter_hourly_stored.voltage_max is 'Highest mean voltage of a reading, V';

comment on view meter_daily is
'Readings of each meter by day (UTC), live tail included; a late reading shows after the next refresh';
comment on column meter_daily.meter_id is 'The meter''s id';
comment on column meter_daily.day is
'Start of the day, UTC; readings count by their timestamp, the end of their interval';
comment on column meter_daily.readings is 'Readings in the day';
comment on column meter_daily.kwh_ac is 'AC energy drawn from the grid, kWh';
comment on column meter_daily.kwh_ac_max is 'Largest AC energy of one reading, kWh';
comment on column meter_daily.voltage_sum is 'Sum of the readings'' mean voltages, V; divide by readings';
comment on column meter_daily.voltage_min is 'Lowest mean voltage of a reading, V';
comment on column meter_daily.voltage_max is 'Highest mean voltage of a reading, V';
comment on column meter_daily_stored.meter_id is 'The meter''s id';
comment on column meter_daily_stored.day is
'Start of the day, UTC; readings count by their timestamp, the end of their interval';
comment on column meter_daily_stored.readings is 'Readings in the day';
comment on column meter_daily_stored.kwh_ac is 'AC energy drawn from the grid, kWh';
comment on column meter_daily_stored.kwh_ac_max is 'Largest AC energy of one reading, kWh';
comment on column meter_daily_stored.voltage_sum is 'Sum of the readings'' mean voltages, V; divide by readings';
comment on column meter_daily_stored.voltage_min is 'Lowest mean voltage of a reading, V';
comment on column meter_daily_stored.voltage_max is 'Highest mean voltage of a reading, V';

comment on view vehicle_hourly is
'Readings of each vehicle by hour, live tail included; a late reading shows after the next refresh';
comment on column vehicle_hourly.vehicle_id is 'The vehicle''s id';
comment on column vehicle_hourly.hour is
'Start of the hour, UTC; readings count by their timestamp, the end of their interval';
comment on column vehicle_hourly.readings is 'Readings in the hour';
comment on column vehicle_hourly.kwh_dc is 'DC energy that reached the battery, kWh';
comment on column vehicle_hourly.kwh_dc_max is 'Largest DC energy of one reading, kWh';
comment on column vehicle_hourly.battery_temp_sum is
'Sum of the battery temperatures, degrees Celsius; divide by readings';
comment on column vehicle_hourly.battery_temp_min is 'Lowest battery temperature, degrees Celsius';
comment on column vehicle_hourly.battery_temp_max is 'Highest battery temperature, degrees Celsius';
comment on column vehicle_hourly.soc_min is 'Lowest state of charge, percent';
comment on column vehicle_hourly.soc_max is 'Highest state of charge, percent';
comment on column vehicle_hourly.soc_first is 'First state of charge, percent';
comment on column vehicle_hourly.soc_last is 'Last state of charge, percent';
comment on column vehicle_hourly_stored.vehicle_id is 'The vehicle''s id';
comment on column vehicle_hourly_stored.hour is
'Start of the hour, UTC; readings count by their timestamp, the end of their interval';
comment on column vehicle_hourly_stored.readings is 'Readings in the hour';
comment on column vehicle_hourly_stored.kwh_dc is 'DC energy that reached the battery, kWh';
comment on column vehicle_hourly_stored.kwh_dc_max is 'Largest DC energy of one reading, kWh';
comment on column vehicle_hourly_stored.battery_temp_sum is
'Sum of the battery temperatures, degrees Celsius; divide by readings';
comment on column vehicle_hourly_stored.battery_temp_min is 'Lowest battery temperature, degrees Celsius';
comment on column vehicle_hourly_stored.battery_temp_max is 'Highest battery temperature, degrees Celsius';
comment on column vehicle_hourly_stored.soc_min is 'Lowest state of charge, percent';
comment on column vehicle_hourly_stored.soc_max is 'Highest state of charge, percent';
comment on column vehicle_hourly_stored.soc_first is 'First state of charge, percent';
comment on column vehicle_hourly_stored.soc_last is 'Last state of charge, percent';

comment on view vehicle_daily is
'Readings of each vehicle by day (UTC), live tail included; a late reading shows after the next refresh';
comment on column vehicle_daily.vehicle_id is 'The vehicle''s id';
comment on column vehicle_daily.day is
'Start of the day, UTC; readings count by their timestamp, the end of their interval';
comment on column vehicle_daily.readings is 'Readings in the day';
comment on column vehicle_daily.kwh_dc is 'DC energy that reached the battery, kWh';
comment on column vehicle_daily.kwh_dc_max is 'Largest DC energy of one reading, kWh';
comment on column vehicle_daily.battery_temp_sum is
'Sum of the battery temperatures, degrees Celsius; divide by readings';
comment on column vehicle_daily.battery_temp_min is 'Lowest battery temperature, degrees Celsius';
comment on column vehicle_daily.battery_temp_max is 'Highest battery temperature, degrees Celsius';
comment on column vehicle_daily.soc_min is 'Lowest state of charge, percent';
comment on column vehicle_daily.soc_max is 'Highest state of charge, percent';
comment on column vehicle_daily.soc_first is 'First state of charge, percent';
comment on column vehicle_daily.soc_last is 'Last state of charge, percent';
comment on column vehicle_daily_stored.vehicle_id is 'The vehicle''s id';
comment on column vehicle_daily_stored.day is
'Start of the day, UTC; readings count by their timestamp, the end of their interval';
comment on column vehicle_daily_stored.readings is 'Readings in the day';
comment on column vehicle_daily_stored.kwh_dc is 'DC energy that reached the battery, kWh';
comment on column vehicle_daily_stored.kwh_dc_max is 'Largest DC energy of one reading, kWh';
comment on column vehicle_daily_stored.battery_temp_sum is
'Sum of the battery temperatures, degrees Celsius; divide by readings';
comment on column vehicle_daily_stored.battery_temp_min is 'Lowest battery temperature, degrees Celsius';
comment on column vehicle_daily_stored.battery_temp_max is 'Highest battery temperature, degrees Celsius';
comment on column vehicle_daily_stored.soc_min is 'Lowest state of charge, percent';
comment on column vehicle_daily_stored.soc_max is 'Highest state of charge, percent';
comment on column vehicle_daily_stored.soc_first is 'First state of charge, percent';
comment on column vehicle_daily_stored.soc_last is 'Last state of charge, percent';

comment on view rollup_health is 'How fresh the rollups are and what went wrong, one row a stream';
comment on column rollup_health.stream is 'meter or vehicle';
comment on column rollup_health.refreshed_until is 'Every hour before this is rolled up, except those in rollup_stale';
comment on column rollup_health.refreshed_at is 'When a refresh last came to its end';
comment on column rollup_health.failed_at is 'When a refresh last failed';
comment on column rollup_health.failures is 'Refreshes that failed so far';
comment on column rollup_health.last_error is 'What the last failure said';

grant select on
meter_hourly, vehicle_hourly, meter_daily, vehicle_daily,
meter_hourly_stored, vehicle_hourly_stored, meter_daily_stored, vehicle_daily_stored, rollup_health
to fleetwatt_service;

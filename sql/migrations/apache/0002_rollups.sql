-- Rollups as hypertables that the refresh fills; views in sql/repeatable/apache add the live tail.

set local lock_timeout = '10s';
set local statement_timeout = '10min';

set local role fleetwatt_owner;

create table meter_hourly_stored (
    meter_id text collate "C" not null,
    hour timestamptz not null,
    readings bigint not null,
    kwh_ac double precision not null,
    kwh_ac_max double precision not null,
    voltage_sum double precision not null,
    voltage_min double precision not null,
    voltage_max double precision not null,
    primary key (meter_id, hour)
);

create table vehicle_hourly_stored (
    vehicle_id text collate "C" not null,
    hour timestamptz not null,
    readings bigint not null,
    kwh_dc double precision not null,
    kwh_dc_max double precision not null,
    battery_temp_sum double precision not null,
    battery_temp_min double precision not null,
    battery_temp_max double precision not null,
    soc_min double precision not null,
    soc_max double precision not null,
    soc_first double precision not null,
    soc_last double precision not null,
    primary key (vehicle_id, hour)
);

create table meter_daily_stored (
    meter_id text collate "C" not null,
    day timestamptz not null,
    readings bigint not null,
    kwh_ac double precision not null,
    kwh_ac_max double precision not null,
    voltage_sum double precision not null,
    voltage_min double precision not null,
    voltage_max double precision not null,
    primary key (meter_id, day)
);

create table vehicle_daily_stored (
    vehicle_id text collate "C" not null,
    day timestamptz not null,
    readings bigint not null,
    kwh_dc double precision not null,
    kwh_dc_max double precision not null,
    battery_temp_sum double precision not null,
    battery_temp_min double precision not null,
    battery_temp_max double precision not null,
    soc_min double precision not null,
    soc_max double precision not null,
    soc_first double precision not null,
    soc_last double precision not null,
    primary key (vehicle_id, day)
);

-- The index on time serves the refresh, which replaces an hour of all devices, and answers over the fleet.
select create_hypertable('meter_hourly_stored', by_range('hour', interval '10 days'));
select create_hypertable('vehicle_hourly_stored', by_range('hour', interval '10 days'));
select create_hypertable('meter_daily_stored', by_range('day', interval '100 days'));
select create_hypertable('vehicle_daily_stored', by_range('day', interval '100 days'));

reset role;

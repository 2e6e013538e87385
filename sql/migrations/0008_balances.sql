-- Energy balances: what each vehicle was billed and what it was delivered, by hour and by day, so that an answer over
-- the fleet reads one row a vehicle and hour. Runs once.

set local lock_timeout = '10s';
set local statement_timeout = '10min';

set local role fleetwatt_owner;

-- Integers, whose sum is a bigint: that of bigints is a numeric, and slower.
create table balance_hourly (
    hour timestamptz not null,
    vehicle_id text collate "C" not null,
    kwh_ac double precision not null,
    -- squawk-ignore prefer-bigint-over-int
    meter_readings integer not null,
    kwh_dc double precision not null,
    -- squawk-ignore prefer-bigint-over-int
    vehicle_readings integer not null,
    primary key (hour, vehicle_id)
);
comment on table balance_hourly is
'What each vehicle was billed through its sessions and what it reported, by hour; exact where balance_parts says so';
comment on column balance_hourly.hour is 'Start of the hour, UTC';
comment on column balance_hourly.vehicle_id is 'The vehicle''s id';
comment on column balance_hourly.kwh_ac is 'AC energy that meters counted while they were the vehicle''s, kWh';
comment on column balance_hourly.meter_readings is 'Readings of meters behind it';
comment on column balance_hourly.kwh_dc is 'DC energy that the vehicle reported, kWh';
comment on column balance_hourly.vehicle_readings is 'Readings of the vehicle behind it';

create table balance_daily (
    day timestamptz not null,
    vehicle_id text collate "C" not null,
    kwh_ac double precision not null,
    -- squawk-ignore prefer-bigint-over-int
    meter_readings integer not null,
    kwh_dc double precision not null,
    -- squawk-ignore prefer-bigint-over-int
    vehicle_readings integer not null,
    primary key (day, vehicle_id)
);
comment on table balance_daily is
'What each vehicle was billed and what it reported, by day (UTC): sums of balance_hourly, and as exact';
comment on column balance_daily.day is 'Start of the day, UTC';
comment on column balance_daily.vehicle_id is 'The vehicle''s id';
comment on column balance_daily.kwh_ac is 'AC energy that meters counted while they were the vehicle''s, kWh';
comment on column balance_daily.meter_readings is 'Readings of meters behind it';
comment on column balance_daily.kwh_dc is 'DC energy that the vehicle reported, kWh';
comment on column balance_daily.vehicle_readings is 'Readings of the vehicle behind it';

-- The key leads with the time: it serves answers over the fleet and the refresh.
select create_hypertable('balance_hourly', by_range('hour', interval '10 days'), create_default_indexes => false);
select create_hypertable('balance_daily', by_range('day', interval '100 days'), create_default_indexes => false);

create table balance_due (
    due_id bigint generated always as identity primary key,
    vehicle_id text collate "C",
    during tstzrange not null check (not isempty(during))
);
comment on table balance_due is
'Append-only log of what balances do not hold yet: spans in which a vehicle''s sessions changed, or of all vehicles';
comment on column balance_due.due_id is 'Running number; a refresh deletes exactly those that it saw';
comment on column balance_due.vehicle_id is 'The vehicle; null stands for all';
comment on column balance_due.during is 'The span';

-- What was rolled up before there were balances.
insert into balance_due (during)
select tstzrange('-infinity', max(p.refreshed_until))
from rollup_progress as p
having max(p.refreshed_until) > '-infinity';

grant select on balance_hourly, balance_daily, balance_due to fleetwatt_service;

reset role;

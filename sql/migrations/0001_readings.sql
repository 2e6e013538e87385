-- Readings, hot state, charging sessions, dead letters, ingest counters, and the roles that may use them.
-- Runs once. Ids are collated "C": equality and key order are the bytes', whatever the database's locale.

set local lock_timeout = '10s';
set local statement_timeout = '10min';

create extension if not exists timescaledb;
create extension if not exists btree_gist;

-- Three roles. They cannot log in unless an operator says so; whoever migrates acts as the owner.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['fleetwatt_owner', 'fleetwatt_service', 'fleetwatt_bi'] loop
        if not exists (select from pg_catalog.pg_roles where rolname = wanted) then
            execute format('create role %I nologin', wanted);
        end if;
    end loop;
    if not pg_catalog.pg_has_role(current_user, 'fleetwatt_owner', 'set') then
        execute format('grant fleetwatt_owner to %I with inherit true, set true', current_user);
    end if;
    if current_user <> 'fleetwatt_owner' then
        grant create, usage on schema public to fleetwatt_owner;
        execute format('grant create on database %I to fleetwatt_owner', current_database());
    end if;
end
$$;

-- The database is the engine's own: nobody but its roles looks into it.
revoke all on schema public from public;
grant usage on schema public to fleetwatt_service;

comment on table alembic_version is 'Which migration this database has reached; written by Alembic';
comment on column alembic_version.version_num is 'Revision, the number of a file in sql/migrations';
alter table alembic_version owner to fleetwatt_owner;

set local role fleetwatt_owner;

create table meter_reading (
    meter_id text collate "C" not null,
    recorded_at timestamptz not null,
    kwh_consumed_ac double precision not null check (kwh_consumed_ac between 0 and 1000),
    voltage double precision not null check (voltage between 0 and 1000),
    ingested_at timestamptz not null default now(),
    primary key (meter_id, recorded_at)
);
comment on table meter_reading is 'AC readings of smart meters, one row per meter and timestamp; never updated';
comment on column meter_reading.meter_id is 'The meter''s id as the device sends it';
comment on column meter_reading.recorded_at is 'End of the interval, by the device''s clock';
comment on column meter_reading.kwh_consumed_ac is 'AC energy drawn from the grid in the interval, kWh';
comment on column meter_reading.voltage is 'Mean grid voltage of the interval, V';
comment on column meter_reading.ingested_at is 'Start of the transaction that stored the row';

create table vehicle_reading (
    vehicle_id text collate "C" not null,
    recorded_at timestamptz not null,
    soc double precision not null check (soc between 0 and 100),
    kwh_delivered_dc double precision not null check (kwh_delivered_dc between 0 and 1000),
    battery_temp double precision not null check (battery_temp between -60 and 150),
    ingested_at timestamptz not null default now(),
    primary key (vehicle_id, recorded_at)
);
comment on table vehicle_reading is 'DC readings of vehicles, one row per vehicle and timestamp; never updated';
comment on column vehicle_reading.vehicle_id is 'The vehicle''s id as the device sends it';
comment on column vehicle_reading.recorded_at is 'End of the interval, by the device''s clock';
comment on column vehicle_reading.soc is 'State of charge, percent';
comment on column vehicle_reading.kwh_delivered_dc is 'DC energy that reached the battery in the interval, kWh';
comment on column vehicle_reading.battery_temp is 'Battery temperature, degrees Celsius';
comment on column vehicle_reading.ingested_at is 'Start of the transaction that stored the row';

-- No index on time alone: every query names devices, and each further index costs ingest a quarter.
select create_hypertable('meter_reading', by_range('recorded_at', interval '1 day'), create_default_indexes => false);
select create_hypertable('vehicle_reading', by_range('recorded_at', interval '1 day'), create_default_indexes => false);

-- Half-empty pages keep the once-a-minute updates of the hot state on the page (HOT), so indexes stay small.
create table meter_state (
    meter_id text collate "C" primary key,
    recorded_at timestamptz not null,
    kwh_consumed_ac double precision not null,
    voltage double precision not null,
    updated_at timestamptz not null default now()
) with (fillfactor = 50);
comment on table meter_state is 'Hot state: the newest reading of each meter, written with the history';
comment on column meter_state.meter_id is 'The meter''s id';
comment on column meter_state.recorded_at is 'Timestamp of the newest reading';
comment on column meter_state.kwh_consumed_ac is 'AC energy of the newest interval, kWh';
comment on column meter_state.voltage is 'Mean grid voltage of the newest interval, V';
comment on column meter_state.updated_at is 'When the row was last written';

create table vehicle_state (
    vehicle_id text collate "C" primary key,
    recorded_at timestamptz not null,
    soc double precision not null,
    kwh_delivered_dc double precision not null,
    battery_temp double precision not null,
    updated_at timestamptz not null default now()
) with (fillfactor = 50);
comment on table vehicle_state is 'Hot state: the newest reading of each vehicle, written with the history';
comment on column vehicle_state.vehicle_id is 'The vehicle''s id';
comment on column vehicle_state.recorded_at is 'Timestamp of the newest reading';
comment on column vehicle_state.soc is 'State of charge, percent';
comment on column vehicle_state.kwh_delivered_dc is 'DC energy of the newest interval, kWh';
comment on column vehicle_state.battery_temp is 'Battery temperature, degrees Celsius';
comment on column vehicle_state.updated_at is 'When the row was last written';

create table charging_session (
    session_id text collate "C" primary key default gen_random_uuid()::text,
    vehicle_id text collate "C" not null,
    meter_id text collate "C" not null,
    during tstzrange not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint charging_session_during_is_half_open check (
        not isempty(during) and not lower_inf(during) and lower_inc(during) and not upper_inc(during)
    ),
    constraint charging_session_during_is_on_the_calendar check (
        lower(during) >= '1900-01-01 00:00:00+00' and (upper_inf(during) or upper(during) <= '3000-01-01 00:00:00+00')
    ),
    constraint charging_session_one_vehicle_a_meter exclude using gist (meter_id with =, during with &&)
);
create index charging_session_vehicle on charging_session using gist (vehicle_id, during);
comment on table charging_session is
'Which vehicle drew from which meter and when; an open end is a standing assignment';
comment on column charging_session.session_id is 'Id of the session: the sender''s own, or a random one';
comment on column charging_session.vehicle_id is 'The vehicle that was charged';
comment on column charging_session.meter_id is 'The meter that billed the energy';
comment on column charging_session.during is 'Start included, end excluded; no end while the session is open';
comment on column charging_session.created_at is 'When the session became known';
comment on column charging_session.updated_at is 'When the session was last changed';

create table dead_letter (
    dead_letter_id bigint generated always as identity primary key,
    received_at timestamptz not null default now(),
    origin text not null,
    kind text check (kind in ('meter', 'vehicle')),
    device_id text,
    code text not null,
    field text,
    message text not null,
    raw bytea not null,
    raw_size bigint not null
);
create index dead_letter_received on dead_letter (received_at);
comment on table dead_letter is 'What was refused, with its raw bytes and the reason, so that nothing sent is lost';
comment on column dead_letter.dead_letter_id is 'Running number';
comment on column dead_letter.received_at is 'When it was refused';
comment on column dead_letter.origin is 'Where it came from: mqtt:<topic>, http:<route> or import:<file>:<line>';
comment on column dead_letter.kind is 'meter or vehicle, where that could be told';
comment on column dead_letter.device_id is 'The device, where that could be told';
comment on column dead_letter.code is 'Stable reason code, as in the HTTP answers';
comment on column dead_letter.field is 'The field to blame, if there is one';
comment on column dead_letter.message is 'The reason in words';
comment on column dead_letter.raw is 'The payload as it was received, cut off at FLEETWATT_DEAD_LETTER_MAX_BYTES';
comment on column dead_letter.raw_size is 'Size of the whole payload in bytes, also where raw was cut off';

create table ingest_minute (
    minute timestamptz not null,
    writer text collate "C" not null,
    kind text collate "C" not null check (kind in ('meter', 'vehicle')),
    accepted bigint not null default 0,
    duplicates bigint not null default 0,
    conflicts bigint not null default 0,
    lag_s_count bigint not null default 0,
    lag_s_sum double precision not null default 0,
    lag_s_max double precision not null default 0,
    primary key (minute, writer, kind)
) with (fillfactor = 50);
comment on table ingest_minute is
'Exact counters of what each writer stored, minute by minute, written in the transaction that stores the readings';
comment on column ingest_minute.minute is 'Minute of the transaction';
comment on column ingest_minute.writer is 'Process that wrote: its role and client id';
comment on column ingest_minute.kind is 'meter or vehicle';
comment on column ingest_minute.accepted is 'Readings stored';
comment on column ingest_minute.duplicates is 'Readings that were stored already, with the same values';
comment on column ingest_minute.conflicts is 'Readings refused because other values are stored under their key';
comment on column ingest_minute.lag_s_count is 'Lags summed up: the newest accepted reading of each device and batch';
comment on column ingest_minute.lag_s_sum is 'Sum of these lags (time of writing - recorded_at), s';
comment on column ingest_minute.lag_s_max is 'Largest of these lags, s';

-- Least privilege: the service adds history and never changes or removes it; BI reads nothing of public.
grant select, insert on meter_reading, vehicle_reading to fleetwatt_service;
grant select, insert, update on meter_state, vehicle_state, charging_session, ingest_minute to fleetwatt_service;
grant select, insert on dead_letter to fleetwatt_service;

create schema bi;
comment on schema bi is 'Stable, documented views for BI tools; the only schema that the role fleetwatt_bi can see';
grant usage on schema bi to fleetwatt_bi;
alter default privileges in schema bi grant select on tables to fleetwatt_bi;

reset role;

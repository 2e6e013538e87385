-- API keys: who may call the HTTP service, and for what. Runs once.

set local lock_timeout = '10s';
set local statement_timeout = '10min';
set local role fleetwatt_owner;

create table api_key (
    key_id text collate "C" primary key check (key_id ~ '^[a-z0-9]{12}$'),
    name text not null check (length(name) between 1 and 100),
    scopes text[] not null check (
        cardinality(scopes) > 0
        and scopes <@ array['ingest', 'read', 'admin']
        and array_position(scopes, null) is null
    ),
    secret_sha256 bytea not null check (octet_length(secret_sha256) = 32),
    meter_ids text[] collate "C",
    vehicle_ids text[] collate "C",
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    -- Devices bind what a key sends; one that may do everything, or sends nothing, cannot be bound.
    constraint api_key_bound_check check (
        (meter_ids is null and vehicle_ids is null)
        or (
            scopes @> array['ingest'] and not scopes @> array['admin']
            and coalesce(cardinality(meter_ids), 0) + coalesce(cardinality(vehicle_ids), 0) > 0
        )
    )
);
comment on table api_key is 'Keys of the HTTP service; once there was one, every request needs a key';
comment on column api_key.key_id is 'The public part of the key, by which it is looked up and named in logs';
comment on column api_key.name is 'What it is for, in its owner''s words';
comment on column api_key.scopes is 'What it may do: ingest, read, admin';
comment on column api_key.secret_sha256 is 'SHA-256 of the secret part; 256 random bits need no slower hash';
comment on column api_key.meter_ids is 'Meters it may send readings of; null: none, or any device if both are null';
comment on column api_key.vehicle_ids is 'Vehicles it may send readings of; null: none, or any device if both are null';
comment on column api_key.created_at is 'When it was made';
comment on column api_key.expires_at is 'From when on it is refused; null: never';
comment on column api_key.revoked_at is 'When it was revoked; null: it was not';
comment on column api_key.last_used_at is 'When it was last used, to the minute';

-- The service checks keys; making and revoking them is the owner's.
grant select on api_key to fleetwatt_service;
grant update (last_used_at) on api_key to fleetwatt_service;

reset role;

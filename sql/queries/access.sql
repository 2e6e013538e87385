-- API keys: the service looks them up and notes their use; making, listing and revoking them is the owner's. Sign-ins:
-- the service begins and ends them, and looks them up.

-- name: any_api_key
-- Tells whether there ever was a key: revoked and expired ones count, so that revoking the last opens nothing.
select exists(select 1 from api_key) as keys_on;

-- name: find_api_keys
-- Gives keys by their public parts, whatever their state; those that do not exist are left out.
select
    key_id,
    name,
    scopes,
    secret_sha256,
    meter_ids,
    vehicle_ids,
    expires_at,
    revoked_at
from api_key
where key_id = any(%(key_ids)s::text[]);

-- name: count_working_api_keys
-- Counts the keys that are good for something right now.
select count(*) as working
from api_key
where revoked_at is null and (expires_at is null or expires_at > now());

-- name: touch_api_keys
-- Notes that keys were used, to the minute; skips those that somebody else is changing right now.
update api_key
set last_used_at = now()
from (
    select stale.key_id
    from api_key as stale
    where
        stale.key_id = any(%(key_ids)s::text[])
        and (stale.last_used_at is null or stale.last_used_at < now() - interval '1 minute')
    order by stale.key_id
    for no key update skip locked
) as used
where api_key.key_id = used.key_id;

-- name: create_api_key
-- Stores a new key; tells whether it is the first one ever, by which keys become required. No row: there is one of
-- that id.
insert into api_key (key_id, name, scopes, secret_sha256, meter_ids, vehicle_ids, expires_at)
values (
    %(key_id)s,
    %(key_name)s,
    %(key_scopes)s::text[],
    %(secret_sha256)s,
    %(key_meter_ids)s::text[],
    %(key_vehicle_ids)s::text[],
    %(expires_at)s::timestamptz
)
on conflict (key_id) do nothing
returning not exists (select 1 from api_key) as is_first;

-- name: list_api_keys
-- Gives all keys, the oldest first, and what each is good for now.
select
    key_id,
    name,
    scopes,
    meter_ids,
    vehicle_ids,
    created_at,
    expires_at,
    revoked_at,
    last_used_at,
    case
        when revoked_at is not null then 'revoked'
        when expires_at <= now() then 'expired'
        else 'active'
    end as state
from api_key
order by created_at, key_id;

-- name: revoke_api_key
-- Revokes a key; one that was revoked before keeps its time. No row: there is no such key.
update api_key
set revoked_at = coalesce(revoked_at, now())
where key_id = %(key_id)s
returning name, revoked_at = now() as is_new;

-- name: begin_sign_in
-- Stores a sign-in with a key; tells when it ends. Null: the key is not good for reading.
select begin_sign_in(%(token_sha256)s, %(key_id)s, %(last_hours)s) as expires_at;

-- name: end_sign_in
-- Ends a sign-in, if there is one.
select end_sign_in(%(token_sha256)s);

-- name: find_sign_ins
-- Gives sign-ins by their tokens' hashes, with their keys; those that are over, or whose keys are not good for
-- reading any more, are left out.
select
    encode(s.token_sha256, 'hex') as token_hash,
    k.key_id,
    k.name,
    least(s.expires_at, k.expires_at) as expires_at
from sign_in as s
inner join api_key as k on s.key_id = k.key_id
where
    s.token_sha256 in (select decode(t.hash, 'hex') from unnest(%(token_hashes)s::text[]) as t (hash))
    and s.expires_at > now()
    and k.revoked_at is null
    and (k.expires_at is null or k.expires_at > now())
    and k.scopes && array['read', 'admin'];

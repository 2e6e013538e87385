-- Sign-ins: the service may begin one with a key that can read, and end one; it may change none.

-- Those that are over go when the next one begins, so nobody else has to clean up. A key has 1,000 at most, the newest:
-- whoever holds one cannot fill the disk with them. Asked again with the same token, it changes nothing.
create or replace function begin_sign_in(new_token_sha256 bytea, of_key_id text, last_hours double precision)
returns timestamptz
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    most constant bigint := 1000;
    key_ends timestamptz;
    ends timestamptz;
begin
    -- Sign-ins of one key have their turns.
    select coalesce(k.expires_at, 'infinity') into key_ends
    from api_key as k
    where
        k.key_id = of_key_id
        and k.revoked_at is null
        and (k.expires_at is null or k.expires_at > now())
        and k.scopes && array['read', 'admin']
    for no key update;
    if not found then
        return null;
    end if;
    delete from sign_in as s
    where
        s.token_sha256 in (
            select o.token_sha256
            from sign_in as o
            where o.expires_at <= now()
            for update skip locked
        );
    insert into sign_in (token_sha256, key_id, expires_at)
    values (
        new_token_sha256,
        of_key_id,
        least(now() + least(greatest(last_hours, 0), 744) * interval '1 hour', key_ends)
    )
    on conflict (token_sha256) do nothing;
    delete from sign_in as s
    where
        s.token_sha256 in (
            select o.token_sha256
            from sign_in as o
            where o.key_id = of_key_id
            order by o.created_at desc
            offset most
        );
    select s.expires_at into ends
    from sign_in as s
    where s.token_sha256 = new_token_sha256 and s.key_id = of_key_id;
    return ends;
end
$$;
comment on function begin_sign_in(bytea, text, double precision) is
'Begins a sign-in with a key, for so many hours, 744 at most; gives its end, null where the key may not read';

create or replace function end_sign_in(old_token_sha256 bytea)
returns void
language sql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    delete from sign_in as s
    where s.token_sha256 = old_token_sha256
$$;
comment on function end_sign_in(bytea) is 'Ends a sign-in, if there is one';

grant execute on function begin_sign_in(bytea, text, double precision) to fleetwatt_service;
grant execute on function end_sign_in(bytea) to fleetwatt_service;

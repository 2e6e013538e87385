-- What the role fleetwatt_bi starts a session with, and what it may not do to the database. These are matters of
-- whoever migrates, not of the owner's role, and only where he has the right: docs/bi.md has the statements.
-- What a session starts with can be changed in the session, so it guards against accidents; the missing rights are
-- what guards against intent.
set local role none;

do $$
declare
    setting text;
begin
    if exists (
        select from pg_catalog.pg_db_role_setting as s
        where
            s.setrole = 'fleetwatt_bi'::regrole
            and s.setdatabase in (0, (select d.oid from pg_catalog.pg_database as d where d.datname = current_database()))
    ) then
        return;  -- an operator has chosen
    end if;
    foreach setting in array array[
        'default_transaction_read_only = on',
        'statement_timeout = ''60s''',
        'idle_in_transaction_session_timeout = ''5min''',
        'search_path = bi',
        'timezone = ''UTC''',
        'jit = off'
    ] loop
        execute format('alter role fleetwatt_bi in database %I set %s', current_database(), setting);
    end loop;
exception
    when insufficient_privilege then
        raise notice 'fleetwatt_bi keeps the server''s defaults: see docs/bi.md';
end
$$;

-- Anybody who may connect may also fill the disk with temporary tables, unless that is taken back.
do $$
begin
    if pg_catalog.pg_has_role((select d.datdba from pg_catalog.pg_database as d where d.datname = current_database()), 'usage') then
        execute format('revoke temporary on database %I from public', current_database());
        execute format('grant temporary on database %I to fleetwatt_owner', current_database());
    end if;
end
$$;

set local role fleetwatt_owner;

-- What the role fleetwatt_bi starts a session with, and what it may not do to the database. These are matters of
-- whoever migrates, not of the owner's role, and only where he has the right: docs/bi.md has the statements. Where he
-- has not, migrating goes on, with a warning that tells what is missing and what to run.
-- What a session starts with can be changed in the session, so it guards against accidents; the missing rights are
-- what guards against intent.
set local role none;

do $$
declare
    settings constant text[] := array[
        'default_transaction_read_only = on',
        'statement_timeout = ''60s''',
        'idle_in_transaction_session_timeout = ''5min''',
        'search_path = bi',
        'timezone = ''UTC''',
        'jit = off'
    ];
    statements text[];
    statement text;
begin
    if exists (
        select from pg_catalog.pg_db_role_setting as s
        where
            s.setrole = 'fleetwatt_bi'::regrole
            and s.setdatabase in (0, (select d.oid from pg_catalog.pg_database as d where d.datname = current_database()))
    ) then
        return;  -- an operator has chosen
    end if;
    select array_agg(format('alter role fleetwatt_bi in database %I set %s', current_database(), s.setting))
    into statements
    from unnest(settings) as s (setting);
    foreach statement in array statements loop
        execute statement;
    end loop;
exception
    when insufficient_privilege then
        raise warning
            'sessions of fleetwatt_bi start as the server has it, since % may not alter that role; not set: %',
            session_user, array_to_string(settings, ', ')
            using hint = 'By a superuser, or whoever has the admin option on the role: '
            || array_to_string(statements, '; ') || '; (docs/bi.md)';
end
$$;

-- Anybody who may connect may also fill the disk with temporary tables, unless that is taken back.
do $$
declare
    statements constant text[] := array[
        format('revoke temporary on database %I from public', current_database()),
        format('grant temporary on database %I to fleetwatt_owner', current_database())
    ];
    base record;
begin
    select d.datacl, d.datdba
    into base
    from pg_catalog.pg_database as d
    where d.datname = current_database();
    if not exists (
        select from pg_catalog.aclexplode(coalesce(base.datacl, pg_catalog.acldefault('d', base.datdba))) as a
        where a.grantee = 0 and a.privilege_type = 'TEMPORARY'
    ) then
        return;
    elsif pg_catalog.pg_has_role(base.datdba, 'usage') then
        execute statements[1];
        execute statements[2];
    else
        raise warning
            'fleetwatt_bi, like everybody, may create temporary tables, since % does not own the database %',
            session_user, current_database()
            using hint = 'By the owner of the database or a superuser: '
            || array_to_string(statements, '; ') || '; (docs/bi.md)';
    end if;
end
$$;

set local role fleetwatt_owner;

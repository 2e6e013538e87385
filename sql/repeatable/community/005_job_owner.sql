-- Jobs of the database run as the owner of what they work on, and TimescaleDB starts none for a role that may not
-- log in. Without a password nobody gets in by that, where logins are checked at all.

-- Whoever migrates made the role, and may change it; the role itself may not.
reset role;

do $$
begin
    if (select not rolcanlogin from pg_catalog.pg_roles where rolname = 'fleetwatt_owner') then
        alter role fleetwatt_owner login;
    end if;
exception
    when insufficient_privilege then
        raise exception 'role fleetwatt_owner may not log in, so TimescaleDB would not run the job that refreshes rollups'
        using
            errcode = 'insufficient_privilege',
            hint = 'let a superuser run "alter role fleetwatt_owner login" (no password is needed), and migrate again';
end
$$;

set local role fleetwatt_owner;

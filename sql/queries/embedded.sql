-- What `fleetwatt up` runs, as the embedded server's superuser, before the first migration.

-- name: offer_role_password
-- Hands a generated password to the block below without putting it into a statement's text.
select
    set_config('fleetwatt.role', %(role)s, false),
    set_config('fleetwatt.password', %(password)s, false);

-- name: create_login_role
-- Lets one of the three roles log in to the embedded server with its generated password.
do $$
begin
    if not exists (
        select from pg_catalog.pg_roles where rolname = current_setting('fleetwatt.role')
    ) then
        execute format('create role %I', current_setting('fleetwatt.role'));
    end if;
    execute format(
        'alter role %I login password %L', current_setting('fleetwatt.role'), current_setting('fleetwatt.password')
    );
end
$$;

-- name: database_exists
-- Tells whether the engine's database is there.
select exists(
    select from pg_catalog.pg_database
    where datname = 'fleetwatt'
);

-- name: create_database
-- The engine's own database; it cannot be created inside a transaction or a block.
create database fleetwatt owner fleetwatt_owner;

-- name: create_extension
-- TimescaleDB is not a trusted extension everywhere, so the superuser creates it.
create extension if not exists timescaledb;

-- name: let_owner_create_roles
-- The owner migrates: the migration makes sure that all three roles exist, and sets what sessions of fleetwatt_bi start
-- with. CREATEROLE alone allows that only for roles that the owner created himself; with the admin option he may, and
-- neither inherits that role's rights nor becomes it.
do $$
begin
    alter role fleetwatt_owner createrole;
    -- As a text, since the linter of SQL does not know the options.
    execute 'grant fleetwatt_bi to fleetwatt_owner with admin true, inherit false, set false';
end
$$;

-- name: quiet_job_history
-- Under the Apache-2 licence TimescaleDB's own job that trims its job history fails, loudly, each time it runs.
update _timescaledb_config.bgw_job set scheduled = false
where proc_name = 'policy_job_stat_history_retention' and current_setting('timescaledb.license') = 'apache';

-- Settings that SQL works by: the service hands them over, since the database sees no environment.

create or replace function setting(wanted text, otherwise double precision)
returns double precision
language sql
stable
set search_path = pg_catalog, public, pg_temp
as $$
    select coalesce((select s.value from engine_setting as s where s.name = wanted), otherwise)
$$;
comment on function setting(text, double precision) is 'A setting of the engine by its name, or else the value given';

-- An earlier release gave back nothing.
drop function if exists apply_settings(text[], double precision[]);
create function apply_settings(names text[], setting_values double precision[])
returns setof text
language sql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
    insert into engine_setting as s (name, value)
    select t.name, t.value
    from unnest(names, setting_values) as t (name, value)
    order by t.name
    on conflict (name) do update set value = excluded.value, updated_at = now()
    where s.value is distinct from excluded.value
    returning s.name
$$;
comment on function apply_settings(text[], double precision[]) is
'Hands the settings of the service to the database and gives the names of those that were other before';

grant execute on function setting(text, double precision), apply_settings(text[], double precision[])
to fleetwatt_service;

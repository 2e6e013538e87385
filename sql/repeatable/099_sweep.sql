-- Drops what earlier releases have left: functions, procedures, views and triggers of the owner's that no file defines
-- any more.
-- The files before this one have made each of their own anew in this transaction, which is written in its row of the
-- catalog. What something else still needs (a view of a user's own) stays, and so does what an extension brought or
-- another role owns.
do $$
declare
    doomed record;
    dropped bigint;
begin
    loop
        dropped := 0;
        for doomed in
            select
                p.oid,
                'pg_catalog.pg_proc'::regclass as catalog,
                case p.prokind when 'p' then 'procedure' else 'function' end as kind,
                p.oid::regprocedure::text as name,
                p.proowner as owner,
                p.pronamespace as folder
            from pg_catalog.pg_proc as p
            where p.xmin <> pg_catalog.pg_current_xact_id()::xid and p.prokind in ('f', 'p')
            union all
            select c.oid, 'pg_catalog.pg_class'::regclass, 'view', c.oid::regclass::text, c.relowner, c.relnamespace
            from pg_catalog.pg_class as c
            inner join pg_catalog.pg_rewrite as w on c.oid = w.ev_class and w.rulename = '_RETURN'
            where
                c.relkind = 'v' and w.xmin <> pg_catalog.pg_current_xact_id()::xid
                -- A continuous aggregate is a view, too, but a migration made it.
                and not exists (
                    select from timescaledb_information.continuous_aggregates as a
                    where format('%I.%I', a.view_schema, a.view_name)::regclass = c.oid
                )
            union all
            select
                t.oid, 'pg_catalog.pg_trigger'::regclass, 'trigger', format('%I on %s', t.tgname, c.oid::regclass),
                p.proowner, c.relnamespace
            from pg_catalog.pg_trigger as t
            inner join pg_catalog.pg_class as c on t.tgrelid = c.oid
            inner join pg_catalog.pg_proc as p on t.tgfoid = p.oid
            where not t.tgisinternal and t.xmin <> pg_catalog.pg_current_xact_id()::xid
        loop
            continue when
                doomed.owner <> 'fleetwatt_owner'::regrole
                or doomed.folder not in ('public'::regnamespace, 'bi'::regnamespace)
                or exists (
                    select from pg_catalog.pg_depend as d
                    where d.classid = doomed.catalog and d.objid = doomed.oid and d.deptype = 'e'
                );
            begin
                execute format('drop %s %s', doomed.kind, doomed.name);
                dropped := dropped + 1;
                raise warning 'dropped the % %, which this release does not have', doomed.kind, doomed.name
                using hint = 'What is not fleetwatt''s own should belong to another role than fleetwatt_owner.';
            exception
                when dependent_objects_still_exist then
                    null;
            end;
        end loop;
        -- What stood on others may be gone now.
        exit when dropped = 0;
    end loop;
end
$$;

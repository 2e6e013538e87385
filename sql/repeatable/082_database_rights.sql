-- Nobody but the owner needs temporary tables, and a table of that kind comes before ours of the same name. Where
-- somebody else owns the database, it is for him to say.
do $$
begin
    if pg_has_role((select datdba from pg_database where datname = current_database()), 'usage') then
        execute format('revoke temporary on database %I from public', current_database());
    end if;
end
$$;

-- Dead letters are kept for a while and within bounds; the service may ask for that, and may delete none itself.

comment on column dead_letter.resolved_at is
'When a replay stored it, or found it stored, or somebody dismissed it; null: it waits';
comment on column dead_letter.replay_error is
'Why the last try was refused too, in words; dismissed: closed by hand, with nothing stored';

-- Deletes what is too old, then what there is too much of: resolved letters first, the oldest first. A bite at a
-- time, so that no transaction lasts; nothing but the rows that go is locked. A letter counts for the bytes that are
-- kept of it and for its row and index entries: a flood of tiny ones would otherwise take many times what is allowed.
-- What is too much is summed up once a bite, so bites are best large: one is nearly always all of a turn.
-- Whoever asks for less than a day or a mebibyte is not followed: a wrong setting cannot empty the table.
drop function if exists prune_dead_letters(bigint, bigint, bigint);
create function prune_dead_letters(max_age_days bigint, max_total_bytes bigint, bite bigint)
returns table (letters bigint, bytes bigint, more boolean)
language plpgsql
security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    row_bytes constant bigint := 500;
    bite_bytes constant bigint := 268435456;
    excess bigint;
    last_letter bigint;
begin
    letters := 0;
    bytes := 0;
    more := false;
    if not pg_try_advisory_xact_lock(26222, 1) then
        return next;
        return;
    end if;
    with doomed as (
        select d.dead_letter_id
        from dead_letter as d
        where d.received_at < now() - greatest(max_age_days, 1) * interval '1 day'
        order by d.received_at
        limit bite
    ),

    gone as (
        delete from dead_letter as d using doomed
        where d.dead_letter_id = doomed.dead_letter_id
        returning octet_length(d.raw) + row_bytes as size
    )

    select count(*), coalesce(sum(g.size), 0) into letters, bytes
    from gone as g;
    if letters = bite then
        more := true;
        return next;
        return;
    end if;
    -- Read in passing: bytes that lie outside the row are not fetched for their length.
    select coalesce(sum(octet_length(d.raw) + row_bytes), 0) - greatest(max_total_bytes, 1048576) into excess
    from dead_letter as d;
    more := excess > bite_bytes;
    excess := least(excess, bite_bytes);
    if excess > 0 then
        -- Up to which letter: each of the two is read in the order of an index of its own.
        select max(o.dead_letter_id) into last_letter
        from (
            select
                r.dead_letter_id,
                sum(r.size) over (order by r.dead_letter_id rows unbounded preceding) - r.size as before
            from (
                select d.dead_letter_id, octet_length(d.raw) + row_bytes as size
                from dead_letter as d
                where d.resolved_at is not null
                order by d.dead_letter_id
                limit bite - letters
            ) as r
        ) as o
        where o.before < excess;
        with gone as (
            delete from dead_letter as d
            where d.resolved_at is not null and d.dead_letter_id <= last_letter
            returning octet_length(d.raw) + row_bytes as size
        )

        select letters + count(*), bytes + coalesce(sum(g.size), 0), excess - coalesce(sum(g.size), 0)
        into letters, bytes, excess
        from gone as g;
    end if;
    if excess > 0 and letters < bite then
        select max(o.dead_letter_id) into last_letter
        from (
            select
                w.dead_letter_id,
                sum(w.size) over (order by w.dead_letter_id rows unbounded preceding) - w.size as before
            from (
                select d.dead_letter_id, octet_length(d.raw) + row_bytes as size
                from dead_letter as d
                where d.resolved_at is null
                order by d.dead_letter_id
                limit bite - letters
            ) as w
        ) as o
        where o.before < excess;
        with gone as (
            delete from dead_letter as d
            where d.resolved_at is null and d.dead_letter_id <= last_letter
            returning octet_length(d.raw) + row_bytes as size
        )

        select letters + count(*), bytes + coalesce(sum(g.size), 0), excess - coalesce(sum(g.size), 0)
        into letters, bytes, excess
        from gone as g;
    end if;
    more := more or excess > 0;
    return next;
end
$$;
comment on function prune_dead_letters(bigint, bigint, bigint) is
'Deletes some dead letters, too old or too many, resolved ones first; gives how many, their bytes, and whether more go';

revoke execute on function prune_dead_letters(bigint, bigint, bigint) from public;
grant execute on function prune_dead_letters(bigint, bigint, bigint) to fleetwatt_service;

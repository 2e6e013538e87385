-- Dead letters: what was refused, what became of it when it was tried again, and how much there is.

-- name: find_dead_letters
-- A page of dead letters, newest first, after the last one of the page before: which, and how long each is.
select
    dead_letter_id,
    octet_length(raw) as kept
from dead_letter
where
    dead_letter_id < coalesce(%(after_letter)s::bigint, 9223372036854775807)
    and (%(is_resolved)s::bool is null or %(is_resolved)s = (resolved_at is not null))
    and (%(letter_kind)s::text is null or kind = %(letter_kind)s)
    and (%(letter_device)s::text is null or device_id = %(letter_device)s)
    and (%(letter_code)s::text is null or code = %(letter_code)s)
    and (%(letter_origin)s::text is null or starts_with(origin, %(letter_origin)s))
    and (%(window_from)s::timestamptz is null or received_at >= %(window_from)s)
    and (%(window_to)s::timestamptz is null or received_at < %(window_to)s)
order by dead_letter_id desc
limit %(page_size)s;

-- name: dead_letters_to_replay
-- The same for a replay, oldest first, so that what came first stays first; of those that wait only. What a key
-- was not allowed to send is tried again only when it is asked for by its code.
select
    dead_letter_id,
    octet_length(raw) as kept
from dead_letter
where
    resolved_at is null
    and dead_letter_id > coalesce(%(after_letter)s::bigint, 0)
    and (%(letter_kind)s::text is null or kind = %(letter_kind)s)
    and (%(letter_device)s::text is null or device_id = %(letter_device)s)
    and case
        when %(letter_code)s::text is null then code <> 'foreign_device' else code = %(letter_code)s
    end
    and (%(letter_origin)s::text is null or starts_with(origin, %(letter_origin)s))
    and (%(window_from)s::timestamptz is null or received_at >= %(window_from)s)
    and (%(window_to)s::timestamptz is null or received_at < %(window_to)s)
order by dead_letter_id
limit %(page_size)s;

-- name: get_dead_letters
-- Dead letters by their ids, with their bytes, oldest first.
select
    dead_letter_id,
    received_at,
    origin,
    kind,
    device_id,
    code,
    field,
    message,
    raw,
    raw_size,
    replays,
    replayed_at,
    replay_error,
    resolved_at
from dead_letter
where dead_letter_id = any(%(letter_ids)s::bigint[])
order by dead_letter_id;

-- name: dead_letter_sizes
-- How long the letters with these ids are, oldest first.
select
    dead_letter_id,
    octet_length(raw) as kept
from dead_letter
where dead_letter_id = any(%(letter_ids)s::bigint[])
order by dead_letter_id;

-- name: summarise_dead_letters
-- How many letters of each code and kind there are, how many of them wait, and from when to when they are.
select
    code,
    kind,
    count(*) as letters,
    count(*) filter (where resolved_at is null) as waiting,
    sum(octet_length(raw))::bigint as kept,
    min(received_at) as oldest,
    max(received_at) as newest
from dead_letter
group by code, kind
order by code, kind;

-- name: mark_dead_letters
-- Notes what came of a replay; null as error: all that is in the letter is stored. Rows are locked in one order, so
-- that two replays of the same letters do not deadlock; what one of them has resolved stays so. A dismissed letter
-- whose readings are stored after all is no longer dismissed.
with tried as (
    select
        d.dead_letter_id,
        v.error
    from dead_letter as d
    inner join
        unnest(%(letter_ids)s::bigint[], %(replay_errors)s::text[]) as v (letter_id, error)
        on d.dead_letter_id = v.letter_id
    order by d.dead_letter_id
    for update of d
)

update dead_letter as d
set
    replays = d.replays + 1,
    replayed_at = now(),
    resolved_at = case
        when tried.error is null and (d.resolved_at is null or d.replay_error = 'dismissed') then now()
        else d.resolved_at
    end,
    replay_error = case when tried.error is null or d.resolved_at is null then tried.error else d.replay_error end
from tried
where d.dead_letter_id = tried.dead_letter_id;

-- name: dismiss_dead_letters
-- Closes letters that wait, for which there is nothing to be done; gives how many. They are locked in the order of
-- the marks of replays.
with chosen as (
    select dead_letter_id
    from dead_letter
    where dead_letter_id = any(%(letter_ids)s::bigint[]) and resolved_at is null
    order by dead_letter_id
    for update
),

dismissed as (
    update dead_letter as d
    set
        resolved_at = now(),
        replay_error = 'dismissed'
    from chosen
    where d.dead_letter_id = chosen.dead_letter_id
    returning d.dead_letter_id
)

select count(*) as dismissed
from dismissed;

-- name: latest_own_dead_letter
-- The dead letter that the current transaction has just written, and why.
select
    code,
    message
from dead_letter
where xmin = pg_current_xact_id()::xid
order by dead_letter_id desc
limit 1;

-- name: dead_letter_disk_bytes
-- What dead letters take on disk, with what was pruned and not vacuumed yet; costs next to nothing.
select pg_total_relation_size('dead_letter');

-- name: dead_letter_growth
-- What letters count for that came after one of them, and the newest; from 0 on that is all there are.
select
    coalesce(sum(octet_length(raw) + 500), 0)::bigint as bytes,
    coalesce(max(dead_letter_id), %(after_letter)s::bigint) as newest
from dead_letter
where dead_letter_id > %(after_letter)s::bigint;

-- name: count_waiting_dead_letters
-- How many letters wait, resolved ones apart.
select count(*)
from dead_letter
where resolved_at is null;

-- name: prune_dead_letters
-- Deletes some of the letters that are too old or too many; gives how many, their bytes, and whether
-- there are more.
select letters, bytes, more
from prune_dead_letters(%(max_age_days)s, %(max_total_bytes)s, %(bite)s);

-- name: vacuum_dead_letters
-- Gives the room of deleted letters free for new ones; at once over when another vacuum is at it.
vacuum (skip_locked) dead_letter;

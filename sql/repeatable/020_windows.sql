-- Window arithmetic: which part of a span rolled-up days and hours can answer, and which part needs raw rows.
-- Spans are half-open, [from, to). Hours and days are UTC's, and a day is '24 hours' to PostgreSQL: '1 day' would
-- be 23 or 25 hours where the session's time zone changes to or from summer time.
-- These functions name everything in full instead of pinning their search_path: only so does the planner put
-- their text into the query that calls them, and sees the bounds that leave chunks out.

-- The longest run of whole bins (hours, days) inside a span; empty when it holds none. Not declared immutable,
-- though it is: sums of timestamps and intervals are not, and the planner would no longer put it in line.
create or replace function whole_bins(span tstzrange, width interval)
returns tstzrange
language sql
stable
parallel safe
as $$
    select
        case
            when isempty(span) then span
            else tstzrange(
                date_bin(width, lower(span) + width - interval '1 microsecond', '2000-01-01 00:00+00'),
                -- A span without a whole bin would end before it starts.
                greatest(
                    date_bin(width, lower(span) + width - interval '1 microsecond', '2000-01-01 00:00+00'),
                    date_bin(width, upper(span), '2000-01-01 00:00+00')
                )
            )
        end
$$;
comment on function whole_bins(tstzrange, interval) is
'The longest run of whole hours or days (UTC, by the width) inside a half-open span; empty when it holds none';

-- Splits a span without remainder and without overlap:
--   days   whole days that are rolled up,
--   hours  whole hours that are rolled up and not in one of those days,
--   rest   everything else, which only raw rows can answer.
create or replace function split_window(
    asked tstzrange, rolled_days tstzmultirange, rolled_hours tstzmultirange
)
returns table (days tstzmultirange, hours tstzmultirange, rest tstzmultirange)
language sql
stable
parallel safe
as $$
    select
        whole.days,
        whole.hours - whole.days as hours,
        tstzmultirange(asked) - whole.hours - whole.days as rest
    from (
        select
            coalesce(
                (
                    select range_agg(public.whole_bins(part.span, interval '24 hours'))
                    from unnest(rolled_days * tstzmultirange(asked)) as part (span)
                ),
                '{}'
            ) as days,
            coalesce(
                (
                    select range_agg(public.whole_bins(part.span, interval '1 hour'))
                    from unnest(rolled_hours * tstzmultirange(asked)) as part (span)
                ),
                '{}'
            ) as hours
        -- Worked out once, however often a query names the parts.
        offset 0
    ) as whole
$$;
comment on function split_window(tstzrange, tstzmultirange, tstzmultirange) is
'Splits a span into whole rolled-up days, whole rolled-up hours, and the rest; disjoint, and together the span';

-- Hours or days that a bin's edge cuts: rows of a rollup fall into one window only if no edge lies within.
create or replace function cut_bins(edges timestamptz[], width interval)
returns tstzmultirange
language sql
immutable
parallel safe
as $$
    select coalesce(range_agg(tstzrange(bins.first, bins.first + width)), '{}')
    from unnest(edges) as e (edge)
    cross join lateral date_bin(width, e.edge, '2000-01-01 00:00+00') as bins (first)
    where bins.first < e.edge
$$;
comment on function cut_bins(timestamptz[], interval) is
'The hours or days (UTC, by the width) that have one of the edges strictly inside';

-- The ends of the hours or days, of any time zone, that follow each other from window_from to window_to; the first
-- and the last one may be cut. A local day starts when its date does: days are counted by the calendar, so one that
-- changes to or from summer time has 23 or 25 hours (Lord Howe: 23.5 or 24.5).
create or replace function window_edges(
    window_from timestamptz, window_to timestamptz, width text, zone text default 'UTC'
)
returns timestamptz[]
language sql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
as $$
    select window_from || array(
        select inner_edges.edge
        from (
            select midnight at time zone zone as edge
            from generate_series(
                date_trunc('day', window_from at time zone zone), window_to at time zone zone, interval '1 day'
            ) as days (midnight)
            where width = 'day'
            union
            select hours.edge
            from generate_series(
                date_trunc('hour', window_from, zone), window_to, interval '1 hour'
            ) as hours (edge)
            where width = 'hour'
        ) as inner_edges
        where inner_edges.edge > window_from and inner_edges.edge < window_to
        order by inner_edges.edge
    ) || window_to
$$;
comment on function window_edges(timestamptz, timestamptz, text, text) is
'Ends of the hours or days (by the width) of a time zone that cover [from, to); the first and last may be cut';

grant execute on function
window_edges(timestamptz, timestamptz, text, text), whole_bins(tstzrange, interval),
split_window(tstzrange, tstzmultirange, tstzmultirange), cut_bins(timestamptz[], interval)
to fleetwatt_service;

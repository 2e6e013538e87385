-- Window arithmetic: which part of a span rolled-up days and hours can answer, and which part needs raw rows.
-- Spans are half-open, [from, to). Hours and days are UTC's.
-- These functions name everything in full instead of pinning their search_path: only so does the planner put
-- their text into the query that calls them, and sees the bounds that leave chunks out.

-- The longest run of whole bins (hours, days) inside a span; empty when it holds none.
create or replace function whole_bins(span tstzrange, width interval)
returns tstzrange
language sql
immutable
parallel safe
as $$
    select
        case
            when isempty(span) or bins.first >= bins.last then 'empty'::tstzrange
            else tstzrange(bins.first, bins.last)
        end
    from (
        select
            date_bin(width, lower(span), '2000-01-01 00:00+00')
            + case when date_bin(width, lower(span), '2000-01-01 00:00+00') < lower(span) then width else '0' end
                as first,
            date_bin(width, upper(span), '2000-01-01 00:00+00') as last
    ) as bins
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
immutable
parallel safe
as $$
    select
        whole.days,
        whole.hours - whole.days,
        tstzmultirange(asked) - whole.hours - whole.days
    from (
        select
            coalesce(
                (
                    select range_agg(public.whole_bins(part.span, interval '1 day'))
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

grant execute on function
whole_bins(tstzrange, interval), split_window(tstzrange, tstzmultirange, tstzmultirange),
cut_bins(timestamptz[], interval)
to fleetwatt_service;

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

-- Hours or days that a bin's edge cuts: rows of a rollup fall into one window only if no edge lies within. PL/pgSQL
-- keeps its plan; an SQL function that cannot be put in line is planned anew by each query that calls it.
create or replace function cut_bins(edges timestamptz[], width interval)
returns tstzmultirange
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, public, pg_temp
as $$
begin
    return (
        select coalesce(range_agg(tstzrange(bins.first, bins.first + width)), '{}')
        from unnest(edges) as e (edge)
        cross join lateral date_bin(width, e.edge, '2000-01-01 00:00+00') as bins (first)
        where bins.first < e.edge
    );
end
$$;
comment on function cut_bins(timestamptz[], interval) is
'The hours or days (UTC, by the width) that have one of the edges strictly inside';

-- The bins (hours, days) that a span cuts at its start and its end, and the part of each that it covers.
create or replace function cut_parts(span tstzrange, width interval)
returns table (bin timestamptz, part_from timestamptz, part_to timestamptz)
language sql
immutable
parallel safe
as $$
    select
        date_bin(width, lower(span), '2000-01-01 00:00+00'),
        lower(span),
        least(date_bin(width, lower(span), '2000-01-01 00:00+00') + width, upper(span))
    where date_bin(width, lower(span), '2000-01-01 00:00+00') < lower(span)
    union all
    select
        date_bin(width, upper(span), '2000-01-01 00:00+00'),
        date_bin(width, upper(span), '2000-01-01 00:00+00'),
        upper(span)
    where
        date_bin(width, upper(span), '2000-01-01 00:00+00') < upper(span)
        -- Else the row above covers it: the span begins inside the bin that it ends in.
        and date_bin(width, upper(span), '2000-01-01 00:00+00') >= lower(span)
$$;
comment on function cut_parts(tstzrange, interval) is
'Hours or days (UTC, by the width) that a span covers in part, and that part; at most two, none of an empty span';

-- The bins (hours, days) of a multirange of whole bins, one by one: an answer reads a run of bins, and names those few
-- that it must not take.
create or replace function bins_of(spans tstzmultirange, width interval)
returns timestamptz[]
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, public, pg_temp
as $$
begin
    return array(
        select g.bin
        from unnest(spans) as part (span)
        cross join lateral generate_series(
            lower(part.span), upper(part.span) - interval '1 microsecond', width
        ) as g (bin)
    );
end
$$;
comment on function bins_of(tstzmultirange, interval) is
'Starts of the hours or days (by the width) that a multirange of whole ones is made of';

-- Where the hours, days, weeks or months of a time zone start, around a window: all that lie in it, one at least
-- before it or at its start, and one at least after it or at its end; in no order.
--   A local hour starts whenever the clock of the zone reads hh:00, and at no other moment. Where the clock is changed
-- by a part of an hour, one hour is longer or shorter: at both changes of Lord Howe (half an hour) one lasts 90
-- minutes; where the clock was put from 02:30 to 03:00, as in Caracas in 2016, one lasted 30.
--   A local day starts with the first moment of its date: at the change where midnight is skipped; at the first of two
-- midnights where the clock goes back to midnight or past it, so that no day comes twice. Days are counted by the
-- calendar: at a change they last 23 or 25 hours (Lord Howe: 23.5 or 24.5).
create or replace function local_starts(
    window_from timestamptz, window_to timestamptz, width text, zone text
)
returns setof timestamptz
language sql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
as $$
    -- To ask the zone is what takes time. No zone changes its clock twice within two days, so a day of UTC has one
    -- offset, or one before and one after; only of a day with two is each hour looked at. 9,000 hours take 12 ms, and
    -- took 35 with the zone asked for each of them.
    select distinct h.moment
    from generate_series(
        date_bin('24 hours', window_from, '2000-01-01 00:00+00') - interval '24 hours',
        window_to + interval '24 hours',
        interval '24 hours'
    ) as d (midnight)
    cross join lateral (
        select
            (d.midnight at time zone zone) - (d.midnight at time zone 'UTC') as before,
            ((d.midnight + interval '24 hours') at time zone zone)
            - ((d.midnight + interval '24 hours') at time zone 'UTC') as after
        offset 0
    ) as o
    cross join lateral unnest(
        case when o.before = o.after then array[o.before] else array[o.before, o.after] end
    ) as s (ahead)
    cross join lateral generate_series(
        date_bin(
            '1 hour',
            d.midnight + interval '1 hour' - interval '1 microsecond',
            '2000-01-01 00:00+00'::timestamptz - s.ahead
        ),
        d.midnight + interval '24 hours' - interval '1 microsecond',
        interval '1 hour'
    ) as h (moment)
    where
        width = 'hour'
        and (o.before = o.after or date_trunc('hour', h.moment at time zone zone) = h.moment at time zone zone)
    union all
    -- Of two moments that read the same PostgreSQL gives the second, by the offset after the change. By that of a day
    -- earlier one gets the first.
    select distinct
        case
            when f.moment < l.moment and f.moment at time zone zone = n.midnight then f.moment
            else l.moment
        end
    from generate_series(
        date_trunc(width, (window_from at time zone zone) - interval '1 day'),
        (window_to at time zone zone) + interval '1 day' + ('1 ' || width)::interval,
        ('1 ' || width)::interval
    ) as n (midnight)
    cross join lateral (select n.midnight at time zone zone as moment offset 0) as l
    cross join lateral (
        select
            l.moment - interval '24 hours' + (n.midnight - ((l.moment - interval '24 hours') at time zone zone))
                as moment
        offset 0
    ) as f
    where width <> 'hour'
$$;
comment on function local_starts(timestamptz, timestamptz, text, text) is
'Starts of the hours, days, weeks or months of a time zone in and next to a window, in no order';

-- The ends of the hours or days, of any time zone, that follow each other from window_from to window_to; the first
-- and the last one may be cut.
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
        select s.moment
        from local_starts(window_from, window_to, width, zone) as s (moment)
        where s.moment > window_from and s.moment < window_to
        order by s.moment
    ) || window_to
$$;
comment on function window_edges(timestamptz, timestamptz, text, text) is
'Ends of the hours or days (by the width) of a time zone that cover [from, to); the first and last may be cut';

-- The ends of the hours, days, weeks or months of a time zone that touch a window, whole ones: a chart wants no bar
-- that is cut.
create or replace function whole_window_edges(
    window_from timestamptz, window_to timestamptz, width text, zone text
)
returns timestamptz[]
language plpgsql
stable
parallel safe
set search_path = pg_catalog, public, pg_temp
as $$
declare
    step interval;
begin
    if width not in ('hour', 'day', 'week', 'month') then
        raise exception 'width must be hour, day, week or month, not %', width using errcode = '22023';
    elsif window_from >= window_to then
        raise exception 'window_from must be before window_to' using errcode = '22023';
    end if;
    step := ('1 ' || width)::interval;
    if window_to - window_from > 10000 * step then
        raise exception 'more than 10,000 windows, each of a %', width using errcode = '22023';
    end if;
    return array(
        select e.moment
        from (
            select
                s.moment,
                lag(s.moment, 1, '-infinity') over (order by s.moment) as before,
                lead(s.moment, 1, 'infinity') over (order by s.moment) as after
            from local_starts(window_from, window_to, width, zone) as s (moment)
        ) as e
        where e.after > window_from and e.before < window_to
        order by e.moment
    );
end
$$;
comment on function whole_window_edges(timestamptz, timestamptz, text, text) is
'Ends of the whole hours, days, weeks or months of a time zone that touch [from, to), in ascending order';

grant execute on function
local_starts(timestamptz, timestamptz, text, text), window_edges(timestamptz, timestamptz, text, text),
whole_bins(tstzrange, interval), split_window(tstzrange, tstzmultirange, tstzmultirange),
cut_bins(timestamptz[], interval), cut_parts(tstzrange, interval),
bins_of(tstzmultirange, interval)
to fleetwatt_service;

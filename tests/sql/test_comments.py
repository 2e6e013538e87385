"""The database explains itself: every table, column, function and schema of ours has a comment."""

from __future__ import annotations

from tests.support.servers import Postgres

UNCOMMENTED = """
    select c.relname::text, a.attname::text
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace and n.nspname in ('public', 'bi')
    left join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where
        c.relkind in ('r', 'v', 'm', 'p')
        and (obj_description(c.oid) is null or col_description(c.oid, a.attnum) is null)
    union all
    select p.proname::text, null
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace and n.nspname in ('public', 'bi')
    where
        obj_description(p.oid) is null
        and not exists (select from pg_depend as d where d.objid = p.oid and d.deptype = 'e')
    order by 1, 2
"""


def test_everything_has_a_comment(postgres: Postgres, database: str) -> None:
    """Tables, views, columns and functions in our schemas; what extensions bring is theirs."""
    with postgres.admin(database) as connection:
        assert connection.execute(UNCOMMENTED).fetchall() == []

"""The checked-in dump is what the migrations build, in one shape on both editions; what landed is frozen."""

from __future__ import annotations

import hashlib
from typing import Any

from service import paths
from tests.support.schema_dump import dump
from tests.support.servers import Postgres

# What a client can name: relations with their columns and types, routines with their arguments.
SHAPE = """
    select
        c.relname::text || '.' || a.attname,
        format_type(a.atttypid, null),
        obj_description(c.oid) is not null
    from pg_class as c
    join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relkind in ('r', 'v') and c.relnamespace in ('public'::regnamespace, 'bi'::regnamespace)
    union all
    select p.oid::regprocedure::text, p.prorettype::regtype::text, obj_description(p.oid) is not null
    from pg_proc as p
    where
        p.pronamespace in ('public'::regnamespace, 'bi'::regnamespace)
        and not exists (select from pg_depend as d where d.objid = p.oid and d.deptype = 'e')
"""
# A step of the refresh that a continuous aggregate does by itself.
ONLY_APACHE = "store_rollup(text,timestamp with time zone,timestamp with time zone)"


def shape(server: Postgres) -> dict[str, tuple[Any, ...]]:
    """Give what a client can name in a migrated database."""
    with server.database() as name, server.admin(name) as connection:
        return {str(row[0]): tuple(row[1:]) for row in connection.execute(SHAPE)}


def test_dump_equals_what_the_migrations_build(running_servers: dict[str, Postgres]) -> None:
    """sql/schema.sql is current; it shows the Apache-2 edition, and `just schema` writes it anew."""
    server = running_servers["apache"]
    with server.database() as name:
        assert dump(server, name) == (paths.SQL / "schema.sql").read_text()


def test_both_editions_have_one_shape(running_servers: dict[str, Postgres]) -> None:
    """Every relation, column and routine has the same name and type on both editions."""
    apache = shape(running_servers["apache"])
    del apache[ONLY_APACHE]
    assert shape(running_servers["community"]) == apache


def test_landed_migrations_are_frozen() -> None:
    """Each migration has the hash it landed with: a change goes into a new file."""
    folder = paths.SQL / "migrations"
    landed = {}
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        landed[name] = digest
    here = {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*.sql")
    }
    assert here == landed

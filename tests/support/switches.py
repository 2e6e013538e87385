"""Turning things off under a running service, and on again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql

from tests.support.servers import Postgres


@contextmanager
def shut(postgres: Postgres, database: str) -> Iterator[None]:
    """Close a database: connections end, and no new one is let in."""
    name = sql.Identifier(database)
    with postgres.admin() as admin:
        admin.execute(sql.SQL("alter database {} allow_connections false").format(name))
        admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = %s and usename = 'fleetwatt_service'",
            (database,),
        )
        try:
            yield
        finally:
            admin.execute(sql.SQL("alter database {} allow_connections true").format(name))

"""Bring a database to the current schema: run-once migrations, then everything that is re-applied.

Alembic keeps the books; the SQL stands in sql/migrations (frozen once released) and sql/repeatable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import sqlalchemy
from alembic import command, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import Connection, conninfo
from psycopg.errors import Diagnostic
from sqlalchemy.pool import NullPool

from service import paths
from service.errors import FleetwattError

# Any constant will do as long as nothing else on the database uses it.
_LOCK_KEY: Final = 0x666C7477


def _config(connection: sqlalchemy.Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(paths.ALEMBIC))
    config.attributes["connection"] = connection
    return config


def run_file(revision: str, *, of_edition: bool = False) -> None:
    """Run the SQL file of a revision, whole and unparsed, on Alembic's connection.

    With `of_edition`, run the one for the edition of TimescaleDB that is there.
    """
    folder = paths.SQL / "migrations"
    if of_edition:
        folder /= _edition(op.get_bind())
    [file] = folder.glob(f"{revision}_*.sql")
    _run_script(op.get_bind(), file.read_text())


def _edition(connection: sqlalchemy.Connection) -> str:
    """Tell which folder holds what differs: community has continuous aggregates and jobs, apache has not."""
    licence = connection.exec_driver_sql("show timescaledb.license").scalar_one()
    return "apache" if licence == "apache" else "community"


def _run_script(connection: sqlalchemy.Connection, script: str) -> None:
    """Send a script of several statements as it is: no parameter syntax is looked for in it."""
    connection.exec_driver_sql(script, execution_options={"no_parameters": True})


def head() -> str:
    """Give the revision that this version of fleetwatt needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise FleetwattError("the installation is incomplete: it holds no migrations")
    return revision


def migrate(url: str, warn: Callable[[str], None] = lambda _: None) -> tuple[str | None, str]:
    """Migrate the database at `url`; give the revision before and after.

    Any number of processes may call this at once: one works, the others wait and find it done. `warn` is told
    what this login may not do, and who should run what instead.
    """

    def notice(told: Diagnostic) -> None:
        if told.severity_nonlocalized == "WARNING":
            warn(f"{told.message_primary}\n{told.message_hint or ''}".strip())

    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        connect_args={**conninfo.conninfo_to_dict(url), "application_name": "fleetwatt migrate"},
        poolclass=NullPool,
    )
    with engine.connect() as lock:
        # The lock lives on a connection of its own: a migration may commit in between.
        lock.execution_options(isolation_level="AUTOCOMMIT")
        lock.execute(sqlalchemy.text("select pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
        with engine.connect() as connection:
            if isinstance(driver := connection.connection.driver_connection, Connection):
                driver.add_notice_handler(notice)
            before = MigrationContext.configure(connection).get_current_revision()
            connection.rollback()
            command.upgrade(_config(connection), "head")
            connection.commit()
            _apply_repeatable(connection)
            connection.commit()
            after = MigrationContext.configure(connection).get_current_revision()
    return before, str(after)


def _apply_repeatable(connection: sqlalchemy.Connection) -> None:
    """Re-create views, functions and procedures, in the order of their file names, as the owner.

    Of two files with one name, the edition's own comes first: the other one says what is the same for both.
    """
    _run_script(connection, "set local role fleetwatt_owner")
    folder = paths.SQL / "repeatable"
    files = [*(folder / _edition(connection)).glob("*.sql"), *folder.glob("*.sql")]
    for file in sorted(files, key=lambda file: file.name):
        _run_script(connection, file.read_text())

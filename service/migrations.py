"""Bring a database to the current schema: run-once migrations, then everything that is re-applied.

Alembic keeps the books; the SQL stands in sql/migrations (frozen once released) and sql/repeatable. Where the
server's licence has become Community since, rollups that are tables become continuous aggregates
(sql/to_community).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import psycopg
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
from service.sql import query

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
        folder /= _rollups_of(op.get_bind()) or _edition(op.get_bind())
    [file] = folder.glob(f"{revision}_*.sql")
    _run_script(op.get_bind(), file.read_text())


def _edition(connection: sqlalchemy.Connection) -> str:
    """Tell which folder holds what differs: community has continuous aggregates and jobs, apache has not."""
    licence = connection.exec_driver_sql("show timescaledb.license").scalar_one()
    return "apache" if licence == "apache" else "community"


def _rollups_of(connection: sqlalchemy.Connection) -> str | None:
    """Tell for which edition the rollups that are there were made; None before there are any."""
    edition: str | None = connection.exec_driver_sql(query("edition_of_rollups")).scalar_one()
    return edition


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
            changed = _leaves_apache(connection)
            connection.rollback()
            command.upgrade(_config(connection), "head")
            connection.commit()
            _run_step(connection, "0_clear")
            connection.commit()
            if changed:
                _move_into_aggregates(connection, lock)
            _apply_repeatable(connection)
            if changed:
                _drop_tables(connection)
            connection.commit()
            if changed:
                warn("rollups have become continuous aggregates: the server has the Community licence now")
            after = MigrationContext.configure(connection).get_current_revision()
    return before, str(after)


def _leaves_apache(connection: sqlalchemy.Connection) -> bool:
    """Tell whether the rollups are tables although this server could have continuous aggregates.

    Raises FleetwattError for the other way round: under its licence this server refuses whatever is added to
    what has continuous aggregates.
    """
    rollups = _rollups_of(connection)
    if rollups is None:
        # The extension may not be there either.
        return False
    server = _edition(connection)
    if (rollups, server) == ("community", "apache"):
        raise FleetwattError(
            "this database was made under TimescaleDB's Community licence and its rollups are continuous "
            "aggregates, but the server runs with timescaledb.license = apache, under which no reading can "
            "be added: set timescaledb.license = timescale and restart the server (docs/upgrading.md)"
        )
    return (rollups, server) == ("apache", "community")


def _run_step(connection: sqlalchemy.Connection, name: str) -> None:
    _run_script(connection, (paths.SQL / "to_community" / f"{name}.sql").read_text())


def _move_into_aggregates(connection: sqlalchemy.Connection, autocommit: sqlalchemy.Connection) -> None:
    """Make continuous aggregates beside the tables, copy what is rolled up into them, let them change places.

    The change of places is left uncommitted, for what builds on it to be made anew in the same transaction.
    Whatever is broken off is begun anew by the next call, and was never in use.
    """
    # Nobody refreshes the rollups until they are where they belong; let go of with the connection.
    autocommit.exec_driver_sql(query("keep_from_refreshing"))
    _run_step(connection, "1_prepare")
    for file in sorted((paths.SQL / "migrations" / "community").glob("*.sql")):
        _run_script(connection, file.read_text())
    connection.commit()
    # It commits as it goes, which no statement may do inside a transaction.
    _run_step(autocommit, "2_fill")
    _run_step(connection, "3_switch")


def _drop_tables(connection: sqlalchemy.Connection) -> None:
    """Drop the tables that aggregates have replaced; FleetwattError where a user's view stands on them."""
    try:
        _run_step(connection, "4_drop")
    except sqlalchemy.exc.DBAPIError as error:
        if not isinstance(error.orig, psycopg.errors.DependentObjectsStillExist):
            raise
        raise FleetwattError(
            "views of your own stand on the rollups in the schema public, which change with the licence: "
            "drop them, migrate, and make them anew, on the views in bi if you can.\n"
            f"{error.orig.diag.message_detail}"
        ) from None


def _apply_repeatable(connection: sqlalchemy.Connection) -> None:
    """Re-create views, functions and procedures, in the order of their file names, as the owner.

    Of two files with one name, the edition's own comes first: the other one says what is the same for both.
    """
    _run_script(connection, "set local role fleetwatt_owner")
    folder = paths.SQL / "repeatable"
    files = [*(folder / _edition(connection)).glob("*.sql"), *folder.glob("*.sql")]
    for file in sorted(files, key=lambda file: file.name):
        _run_script(connection, file.read_text())

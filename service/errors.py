"""Every error fleetwatt raises on purpose, and which database errors are worth another try."""

from __future__ import annotations

import psycopg


class FleetwattError(Exception):
    """Something the user can act on; its text says what was wrong, where, and what to do."""


class SettingsError(FleetwattError):
    """A FLEETWATT_* variable cannot be read."""


class EmbeddedError(FleetwattError):
    """The embedded servers cannot be installed, started or found."""


class ImportFileError(FleetwattError):
    """A file cannot be imported at all; single bad lines are reported, not raised."""


class ExportError(FleetwattError):
    """Something cannot be exported: the target cannot be written, or a package is missing."""


class IngestError(FleetwattError):
    """A submission was not stored."""


class BufferFullError(IngestError):
    """The buffer has no room; the sender should come back later."""


class DatabaseUnavailableError(IngestError):
    """The database does not answer; nothing is lost as long as the sender keeps the reading."""


class AtomicRefusedError(IngestError):
    """An all-or-nothing submission could not be stored whole, so none of it was.

    `conflicts` are the indices of the readings that contradict stored ones.
    """

    def __init__(self, conflicts: list[int], reason: str = "some readings contradict stored ones") -> None:
        super().__init__(reason)
        self.conflicts = conflicts


def first_line(error: BaseException | str) -> str:
    """Give what an error says in its first line: the next ones of a database's point into a statement."""
    return str(error).strip().partition("\n")[0]


def no_answer(error: BaseException) -> DatabaseUnavailableError:
    """Word that a database cannot be reached, for whoever called a command."""
    return DatabaseUnavailableError(f"the database does not answer: {first_line(error)}")


# What an empty database, or one of an earlier release, says to a query of ours.
NO_SCHEMA = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
)


def no_schema() -> FleetwattError:
    """Word that a database is not migrated, for whoever called a command."""
    return FleetwattError("the database has no schema yet, or an older one: run `fleetwatt migrate`")


# SQLSTATE classes that blame the data itself: it is malformed, or a constraint forbids it.
_BLAMES_DATA = ("22", "23")
# Connection, transaction state (read-only), rollback by the server, resources, object state (locks), operator
# intervention, system; and what a migration mends: missing privileges and tables.
_PASSES = ("08", "25", "40", "53", "55", "57", "58", "42501", "42P01")
# More than one transaction can hold: out of memory (locks too), a limit of the server exceeded.
_TOO_LARGE = ("53200", "54")


def blames_data(error: BaseException) -> bool:
    """Tell whether the same data would be refused again, whatever the state of the server."""
    return isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(_BLAMES_DATA)


def is_too_large(error: BaseException) -> bool:
    """Tell whether a part of the same transaction may succeed where the whole cannot."""
    return isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(_TOO_LARGE)


def is_transient(error: BaseException) -> bool:
    """Tell whether the same transaction may succeed later, with nothing changed in it.

    A server that is away, restarting, read-only, out of room, locked by maintenance, or not migrated yet: a
    reading must not be refused for any of these. An error without SQLSTATE comes from the driver: the
    connection broke, unless it is a defect of ours.
    """
    if not isinstance(error, psycopg.Error):
        return isinstance(error, OSError)
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_PASSES)

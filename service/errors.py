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


class IngestError(FleetwattError):
    """A submission was not stored."""


class BufferFullError(IngestError):
    """The buffer has no room; the sender should come back later."""


class DatabaseUnavailableError(IngestError):
    """The database does not answer; nothing is lost as long as the sender keeps the reading."""


class AtomicRefusedError(IngestError):
    """An all-or-nothing submission held a conflict, so that none of it was stored."""

    def __init__(self, conflicts: list[int]) -> None:
        super().__init__("the submission holds readings that contradict stored ones")
        self.conflicts = conflicts


# Connection lost, rolled back by a deadlock or a serialization failure, out of resources, operator
# intervention (shutdown, crash recovery). The same statement may succeed in a moment.
_TRANSIENT_CLASSES = ("08", "40", "53", "57")
# Read-only: a replica that is about to be promoted. Lock not available: our own lock_timeout.
_TRANSIENT_STATES = ("25006", "55P03")


def is_transient(error: BaseException) -> bool:
    """Tell whether the same transaction may succeed later.

    An error without SQLSTATE comes from the driver, not from the server: the connection broke.
    """
    if not isinstance(error, psycopg.Error):
        return isinstance(error, OSError)
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate[:2] in _TRANSIENT_CLASSES or error.sqlstate in _TRANSIENT_STATES

"""Which errors are worth another try: told by SQLSTATE and by type, never by text."""

from __future__ import annotations

import psycopg
import psycopg_pool
import pytest
from psycopg import errors

from service.errors import (
    AtomicRefusedError,
    BufferFullError,
    DatabaseUnavailableError,
    FleetwattError,
    IngestError,
    SettingsError,
    is_transient,
)


@pytest.mark.parametrize(
    "sqlstate",
    [
        "08000",  # connection exception
        "08006",  # connection failure
        "40001",  # serialization failure
        "40P01",  # deadlock
        "53100",  # disk full
        "53200",  # out of memory
        "53300",  # too many connections
        "57P01",  # shut down by an administrator
        "57P02",  # crash shutdown
        "57P03",  # cannot connect now
        "57014",  # query canceled
        "55P03",  # lock not available: our own lock_timeout, while DDL holds the table
        "42P01",  # undefined table: not migrated yet
        "42501",  # insufficient privilege: an operator's business, not the reading's
        "58030",  # input/output error
        "25006",  # read-only transaction: a replica during failover
    ],
)
def test_worth_another_try(sqlstate: str) -> None:
    """The same transaction may succeed in a moment: nothing about the readings is wrong."""
    assert is_transient(errors.lookup(sqlstate)("whatever it says"))


@pytest.mark.parametrize(
    "sqlstate",
    [
        "22003",  # numeric value out of range
        "22008",  # datetime field overflow
        "22021",  # character not in repertoire
        "23502",  # not null
        "23505",  # unique violation
        "23514",  # check violation
        "23P01",  # exclusion violation
        "42601",  # syntax error
        "XX000",  # internal error
    ],
)
def test_not_worth_another_try(sqlstate: str) -> None:
    """The same statement would fail for ever."""
    assert not is_transient(errors.lookup(sqlstate)("connection failed"))


def test_errors_without_sqlstate() -> None:
    """Without SQLSTATE the driver speaks: a broken connection is worth another try, a wrong use is not."""
    assert is_transient(psycopg.OperationalError("the connection is lost"))
    assert is_transient(psycopg.InterfaceError("the connection is closed"))
    assert is_transient(psycopg_pool.PoolTimeout("no connection in time"))
    assert not is_transient(psycopg.DataError("cannot adapt"))
    assert not is_transient(psycopg.ProgrammingError("wrong placeholders"))


def test_other_errors() -> None:
    """The network's errors are worth another try, defects of ours are not."""
    assert is_transient(ConnectionRefusedError())
    assert is_transient(TimeoutError())
    assert not is_transient(ValueError())
    assert not is_transient(AtomicRefusedError([1]))


@pytest.mark.parametrize(
    "error", [BufferFullError, DatabaseUnavailableError, AtomicRefusedError, SettingsError]
)
def test_one_tree(error: type[Exception]) -> None:
    """Every error raised on purpose can be caught as one, and those of ingest as one of theirs."""
    assert issubclass(error, FleetwattError)
    assert issubclass(error, IngestError) == (error is not SettingsError)

"""Connection pools, and the session settings that every connection of the service gets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, LiteralString

import psycopg
from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from service import dsn
from service.errors import SettingsError
from service.settings import Settings

ReadPool = AsyncConnectionPool[AsyncConnection[dict[str, Any]]]

# A peer that is cut off is noticed in half a minute instead of hours.
_TCP: Final[dict[str, Any]] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_POOL_WAIT_S: Final = 5.0
_ONLY_READ: Final = " -c default_transaction_read_only=on -c default_transaction_isolation=repeatable\\ read"


def require_url(settings: Settings) -> str:
    """Give the database URL, or raise SettingsError that says how to get one, or how to write it."""
    if not settings.database_url:
        raise SettingsError(
            "no database: set FLEETWATT_DATABASE_URL, or start everything, service and worker too, with "
            "`fleetwatt up` (where that runs, `fleetwatt status --json` tells the URL as serviceDatabase)"
        )
    dsn.check(settings.database_url)
    return settings.database_url


def read_pool(settings: Settings, name: str = "read", most: int | None = None) -> ReadPool:
    """Make a pool that answers queries; open it with `await pool.open(wait=...)`.

    It has at most `most` connections, or as many as the setting read_pool_max says. Rows come as dicts.
    Each connection works in UTC and gives up a query that takes too long.
    """
    return _pool(settings, require_url(settings), name, most or settings.read_pool_max)


def question_pool(settings: Settings, url: str, name: str = "read", *, check: bool = True) -> ReadPool:
    """Make a pool as `read_pool` does whose connections only read, each transaction on one snapshot.

    So whatever is asked there can be asked of a replica, too. Without `check` a connection may turn out to be
    dead when it is used.
    """
    return _pool(
        settings,
        url,
        name,
        settings.read_pool_max,
        options=_ONLY_READ,
        configure=_read_at_one_moment,
        check=check,
    )


def _pool(
    settings: Settings,
    url: str,
    name: str,
    most: int,
    *,
    options: str = "",
    configure: Callable[[AsyncConnection[Any]], Awaitable[None]] | None = None,
    check: bool = True,
) -> ReadPool:
    timeout_ms = int(settings.statement_timeout_s * 1000)
    return AsyncConnectionPool(
        url,
        kwargs={
            "row_factory": dict_row,
            "autocommit": True,
            "application_name": f"fleetwatt {name}",
            "options": f"-c timezone=UTC -c statement_timeout={timeout_ms}{options}",
            "connect_timeout": 5,
            **_TCP,
        },
        min_size=1,
        max_size=most,
        timeout=_POOL_WAIT_S,
        # Its own tries to connect have pauses that double: those of a long outage would go on after it. Once
        # it has given up, whoever asks has it try anew.
        reconnect_timeout=_POOL_WAIT_S,
        open=False,
        name=name,
        configure=configure,
        # A dead server costs one failed check here instead of one failed request.
        check=AsyncConnectionPool.check_connection if check else None,
    )


async def _read_at_one_moment(connection: AsyncConnection[Any]) -> None:
    """Say in each BEGIN what the options say as well: poolers between us and the server may drop options."""
    await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    await connection.set_read_only(True)


async def writer_connection(url: str, name: str = "write") -> AsyncConnection[tuple[Any, ...]]:
    """Open a connection that writes: UTC, and a statement never outlives a lost peer for long.

    A small batch is one statement: whoever waits for a lock with it must not commit it long after its sender
    was told to send again.

    `name` says in pg_stat_activity whose it is: "fleetwatt write" is the writer of readings.
    """
    return await AsyncConnection.connect(
        url,
        autocommit=True,
        application_name=f"fleetwatt {name}",
        options="-c timezone=UTC -c lock_timeout=30s -c client_connection_check_interval=1s",
        connect_timeout=5,
        **_TCP,
    )


def hang_up(connection: AsyncConnection[Any]) -> None:
    """Shut a connection's socket, so that whoever waits on it sees its end at once.

    A cancelled wait asks the server to cancel and waits for its word, which a frozen one does not give. The
    socket is not closed: its number must not become another's while somebody watches it.
    """
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)


async def fetch_all(
    pool: ReadPool,
    statement: LiteralString,
    parameters: dict[str, Any] | None = None,
    *,
    timeout_s: float = 40.0,
) -> list[dict[str, Any]]:
    """Run a named query and give all its rows.

    Raises TimeoutError when the server, however alive its sockets, does not answer: its own
    statement_timeout cannot end a query of a server that is frozen or cut off.
    """
    async with asyncio.timeout(timeout_s), pool.connection() as connection:
        cursor = await connection.execute(statement, parameters)
        return await cursor.fetchall()

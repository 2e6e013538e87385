"""Where analytics ask: a replica while it may be asked, else the primary; one moment for each answer."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final, LiteralString, NamedTuple, Protocol, Self

import psycopg
from psycopg_pool import PoolTimeout

from service import db, dsn, metrics
from service.errors import is_transient
from service.replica import Replica, State
from service.settings import Settings

Rows = list[dict[str, Any]]

_PATIENCE_S: Final = 10.0
# The server was told to end the query, most often by its own statement_timeout.
_CANCELED: Final = "57014"
_CONFLICTS: Final = frozenset({"40001", "40P01"})


class Question(NamedTuple):
    """A named query and its parameters."""

    statement: LiteralString
    parameters: dict[str, Any] | None = None


class Source(Protocol):
    """Somebody who answers questions."""

    async def ask(self, *questions: Question) -> list[Rows]:
        """Give the rows of each question, all as of one moment.

        Raises psycopg.Error, and TimeoutError when the server, however alive its sockets, does not answer.
        """


class Server:
    """One server, over a pool of connections that only read, each transaction on one snapshot."""

    def __init__(self, pool: db.ReadPool, patience_s: float) -> None:
        self._pool = pool
        self._patience_s = patience_s
        self._using: set[psycopg.AsyncConnection[Any]] = set()

    async def ask(self, *questions: Question) -> list[Rows]:
        """Give the rows of each question, all as of one moment; as of Source."""
        async with asyncio.timeout(self._patience_s * len(questions)), self._pool.connection() as connection:
            self._using.add(connection)
            try:
                if len(questions) == 1:
                    return [await _rows(connection, questions[0])]
                async with connection.transaction():
                    return [await _rows(connection, question) for question in questions]
            finally:
                self._using.discard(connection)

    @property
    def busy(self) -> bool:
        """Tell whether a question is under way."""
        return bool(self._using)

    def hang_up(self) -> None:
        """Fail all questions that are under way: the server is known not to answer them."""
        for connection in self._using:
            db.hang_up(connection)


async def _rows(connection: psycopg.AsyncConnection[dict[str, Any]], question: Question) -> Rows:
    statement, parameters = question
    return await (await connection.execute(statement, parameters)).fetchall()


class Questions:
    """Asks the replica that the settings name, and the primary where that must not or cannot answer.

    An async context manager; it can start while neither is there. `primary` is for what must see all that was
    acknowledged before it was asked.
    """

    def __init__(self, settings: Settings) -> None:
        # The server ends a statement itself, unless it is frozen or cut off.
        patience_s = settings.statement_timeout_s + _PATIENCE_S
        self._pools = [db.question_pool(settings, db.require_url(settings))]
        self.primary = Server(self._pools[0], patience_s)
        self._replica: Replica | None = None
        if settings.read_database_url:
            dsn.check(settings.read_database_url, "FLEETWATT_READ_DATABASE_URL")
            # Not checked before use: one that is dead costs a question to the primary.
            self._pools.append(db.question_pool(settings, settings.read_database_url, "replica", check=False))
            self._at_replica = Server(self._pools[1], patience_s)
            self._replica = Replica(settings, self._at_replica.hang_up)

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        for pool in self._pools:
            await pool.open(wait=False)
            self._stack.push_async_callback(pool.close)
        if self._replica is not None:
            await self._stack.enter_async_context(self._replica)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def replica_state(self) -> State | None:
        """Tell whether the replica may be asked, or why not; None where the settings name none."""
        return self._replica.state if self._replica else None

    async def ask(self, *questions: Question) -> list[Rows]:
        """Give the rows of each question, all as of one moment, at most read_lag_max_s ago; as of Source."""
        if self._replica is not None:
            result: str = self._replica.state
            if result == "ok":
                try:
                    answer = await self._at_replica.ask(*questions)
                except (psycopg.Error, OSError) as error:
                    if not self._is_of_replica(error):
                        raise
                    conflict = getattr(error, "sqlstate", None) in _CONFLICTS
                    result = "conflict" if conflict else "failed"
                else:
                    metrics.REPLICA_QUESTIONS.labels("answered").inc()
                    return answer
            metrics.REPLICA_QUESTIONS.labels(result).inc()
        return await self.primary.ask(*questions)

    def _is_of_replica(self, error: psycopg.Error | OSError) -> bool:
        """Tell whether the primary may answer what the replica could not.

        It may when the replica ended the query to go on with its recovery, is away, gives no connection, or
        lacks what the primary has. What took too long, or found all connections busy, would only keep the
        primary busy as long.
        """
        if isinstance(error, PoolTimeout):
            return self.replica_state != "ok" or not self._at_replica.busy
        if isinstance(error, TimeoutError):
            return self.replica_state != "ok"
        return is_transient(error) and getattr(error, "sqlstate", None) != _CANCELED

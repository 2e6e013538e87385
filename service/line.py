"""A line of one's own to the database, for short questions that must not wait behind any others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from service import db
from service.errors import DatabaseUnavailableError


class Line:
    """One connection that answers one query at a time, each in `patience_s` at most.

    Not from a pool: its waits are longer than a probe's or a sender's patience, and slow queries there do not
    mean that the database is away. It is opened when it is needed, and again when the server was restarted.
    `name` says in pg_stat_activity whose it is.
    """

    def __init__(self, url: str, name: str, patience_s: float) -> None:
        self._url = url
        self._name = name
        self._patience_s = patience_s
        self._connection: AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()
        self._times_given_up = 0
        self._closed = False

    async def ask(
        self, statement: LiteralString, parameters: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Run a query and give its rows. Raises DatabaseUnavailableError, also when no answer comes in time.

        Those that wait for their turn then fail with it: they would only find out the same. The query is not
        cancelled: psycopg would wait many seconds more for the word of a server that is frozen.
        """
        era = self._times_given_up
        # What waits for its turn has not begun yet, and no time is counted.
        async with self._turn:
            self._refuse_past(era)
            task = asyncio.create_task(self._run(era, statement, parameters))
            # Given up, nobody is left to take its error.
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            try:
                await asyncio.wait({task}, timeout=self._patience_s)
            finally:
                if not task.done():
                    self._give_up()
        self._refuse_past(era)
        try:
            return task.result()
        except (psycopg.Error, OSError) as error:
            raise DatabaseUnavailableError("the database is away; try again soon") from error

    async def close(self) -> None:
        """Close the connection; a question that is still under way fails, and there is no other one."""
        self._closed = True
        if self._turn.locked():
            self._give_up()
        async with self._turn:
            connection, self._connection = self._connection, None
            if connection is not None:
                await connection.close()

    def _give_up(self) -> None:
        """Break the connection, so that whoever waits for it gets an error, now or soon."""
        self._times_given_up += 1
        connection, self._connection = self._connection, None
        if connection is not None:
            db.hang_up(connection)

    def _refuse_past(self, era: int) -> None:
        if self._closed or self._times_given_up != era:
            raise DatabaseUnavailableError("the database does not answer; try again soon")

    async def _run(
        self, era: int, statement: LiteralString, parameters: dict[str, Any] | None
    ) -> list[dict[str, Any]]:
        if self._connection is not None:
            # The server may have been restarted since: then a new connection is worth one try.
            with suppress(psycopg.OperationalError):
                return await self._fetch(self._connection, statement, parameters)
            self._refuse_past(era)
        connection = await db.writer_connection(self._url, self._name)
        if self._closed or self._times_given_up != era:
            # Given up while it was connecting: nobody else would close it.
            await connection.close()
        self._refuse_past(era)
        self._connection = connection
        return await self._fetch(connection, statement, parameters)

    async def _fetch(
        self, connection: AsyncConnection[Any], statement: LiteralString, parameters: dict[str, Any] | None
    ) -> list[dict[str, Any]]:
        try:
            async with connection.cursor(row_factory=dict_row) as cursor:
                await cursor.execute(statement, parameters)
                return await cursor.fetchall()
        except psycopg.OperationalError:
            await connection.close()
            if self._connection is connection:
                self._connection = None
            raise

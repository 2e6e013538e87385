"""Whether the database answers right now, for the readiness probe."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection

from service import db
from service.errors import DatabaseUnavailableError
from service.settings import Settings
from service.sql import query

_PATIENCE_S: Final = 1.5


class Pulse:
    """Asks the database for a sign of life, one question at a time, on a connection of its own.

    Not through the pool: its waits are longer than a probe's patience, and slow queries there do not mean
    that the database is away.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.database_url
        self._connection: AsyncConnection[Any] | None = None
        self._question: asyncio.Task[None] | None = None

    async def feel(self) -> None:
        """Return once the database has answered; raise DatabaseUnavailableError after 1.5 s at most.

        Whoever comes while a question is under way waits for its answer: any number of probes is one query.
        """
        question = self._question
        if question is None or question.done():
            question = self._question = asyncio.create_task(self._ask())
            # Whoever waited may have gone: nobody is left to take an error then.
            question.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        done, _ = await asyncio.wait({question}, timeout=_PATIENCE_S)
        if not done and self._question is question:
            self._give_up(question)
        if not done or question.cancelled():
            raise DatabaseUnavailableError("the database does not answer")
        try:
            question.result()
        except (psycopg.Error, OSError) as error:
            raise DatabaseUnavailableError("the database is away") from error

    async def close(self) -> None:
        """Close the connection."""
        if self._question is not None and not self._question.done():
            self._give_up(self._question)
        if self._connection is not None:
            await self._connection.close()

    def _give_up(self, question: asyncio.Task[None]) -> None:
        """Leave a question to itself, and its connection with it.

        A query is not cancelled: psycopg would then wait for the word of a server that is frozen.
        """
        self._question = None
        connection, self._connection = self._connection, None
        if connection is None:
            question.cancel()
        else:
            db.hang_up(connection)

    async def _ask(self) -> None:
        if self._connection is not None:
            # The server may have been restarted since: then a new connection is worth one try.
            with suppress(psycopg.Error):
                await self._ping(self._connection)
                return
            if self._question is not asyncio.current_task():
                raise DatabaseUnavailableError("the database does not answer")
        self._connection = await db.writer_connection(self._url, "health")
        await self._ping(self._connection)

    async def _ping(self, connection: AsyncConnection[Any]) -> None:
        try:
            await connection.execute(query("ping"))
        except BaseException:
            await connection.close()
            if self._connection is connection:
                self._connection = None
            raise

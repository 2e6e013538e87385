"""Messages about sessions that wait in the database: looked through now and then, and given up after a while.

A meter at a time, each in short transactions of its own: no lock is held for long, what fails for one meter
stops no other one, and however many messages have piled up, each turn gets some of them out of the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, LiteralString

import psycopg
from psycopg import AsyncConnection

from service import db, log
from service.settings import Settings
from service.sql import query

# Meters that are asked for at once.
_PORTION: Final = 500
# A server that is frozen or cut off does not end its statements itself.
_GRACE_S: Final = 10.0

Connection = AsyncConnection[tuple[Any, ...]]


async def expire_messages(settings: Settings) -> int:
    """Give up messages that have waited too long, and say how many; use those that fit by now.

    One process at a time does it; for the others there is nothing to do. Raises psycopg.Error or OSError when
    the database is away; what goes wrong with a single meter is logged, and tried again next time.
    """
    async with await db.writer_connection(db.require_url(settings), "sessions") as connection:
        turn = _Turn(connection, settings)
        [taken, _] = await turn.one(query("try_to_expire_messages"), {"timeout_ms": turn.timeout_ms})
        # A connection that breaks lets go of the lock as well.
        if taken:
            await turn.run()
            await turn.one(query("stop_expiring_messages"), {})
    return turn.given_up


class _Turn:
    """One look at all the meters whose messages wait."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._failed = 0
        self.timeout_ms = int(settings.statement_timeout_s * 1000)
        self.given_up = 0

    async def run(self) -> None:
        # What is given up need not be tried first: that alone could take longer than a statement may.
        async for meter_id, some_wait, some_are_old in self._meters():
            if some_are_old:
                wait = {"meter_id": meter_id, "wait_s": self._settings.session_wait_s}
                [given_up] = await self._for_a_meter(query("expire_session_messages"), wait) or [0]
                self.given_up += given_up
            if some_wait:
                await self._for_a_meter(query("settle_session_messages"), {"meter_id": meter_id})
        if self._failed:
            log.get("sessions").warning("expiry_incomplete", failed=self._failed)

    async def _meters(self) -> AsyncIterator[tuple[str, bool, bool]]:
        last = ""
        while True:
            page = {"after": last, "wait_s": self._settings.session_wait_s, "page_size": _PORTION}
            found = await self._all(query("meters_with_messages"), page)
            for meter_id, some_wait, some_are_old in found:
                yield meter_id, some_wait, some_are_old
            if len(found) < _PORTION:
                return
            last = found[-1][0]

    async def _for_a_meter(self, statement: LiteralString, values: dict[str, Any]) -> tuple[Any, ...] | None:
        """Run a statement for one meter; None, and a word in the log, if it fails but others need not."""
        try:
            return await self.one(statement, values)
        except psycopg.Error as error:
            if self._connection.broken or self._connection.closed:
                raise
            # One is enough: where many fail it is for the same reason.
            if not self._failed:
                log.get("sessions").warning(
                    "expiry_of_meter_failed",
                    meter_id=values["meter_id"],
                    sqlstate=error.sqlstate,
                    detail=str(error).splitlines()[:1],
                )
            self._failed += 1
            return None

    async def one(self, statement: LiteralString, values: dict[str, Any]) -> tuple[Any, ...]:
        """Run a statement that gives one row."""
        [row] = await self._all(statement, values)
        return row

    async def _all(self, statement: LiteralString, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        async with asyncio.timeout(self._settings.statement_timeout_s + _GRACE_S):
            return await (await self._connection.execute(statement, values)).fetchall()

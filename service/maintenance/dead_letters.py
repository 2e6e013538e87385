"""Keeps dead letters within their age and their room, also while somebody floods the engine with poison."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, LiteralString, NoReturn

from psycopg import AsyncConnection

from service import db, lifecycle, log, metrics
from service.settings import Settings
from service.sql import query

# A look reads how long the letters are that came since the last one: an index and some rows.
_LOOK_S: Final = 10.0
_COUNT_S: Final = 60.0
_TURN_S: Final = 600.0
# Growth, as a share of what is allowed, that calls for a turn before its time.
_EARLY: Final = 8
# Each bite begins with a look at all letters, and so many are gone in some seconds, whatever their size.
_BITE: Final = 500_000
# After so many the room is made free, even while more letters come in than go.
_BITES: Final = 10
_TIMEOUT_S: Final = 600.0

Connection = AsyncConnection[tuple[Any, ...]]
_log = log.get("dead_letters")


class DeadLetterBounds:
    """The loop that every process runs; an advisory lock lets one of them prune at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._counted_at = 0.0
        self._pruned_at = 0.0
        # What came since the last turn, up to which letter. Not the growth on disk: a flood that fills room
        # which was pruned before makes the table no larger, for a while.
        self._bytes_since = 0
        self._newest = 0
        self._connection: Connection | None = None

    async def run(self) -> NoReturn:
        """Look, count and prune for ever; what goes wrong is logged, and tried again next time."""
        try:
            await lifecycle.repeat(self.look, _LOOK_S, _log, "prune_failed")
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connection, which is kept from look to look."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def look(self) -> None:
        """See how much came; prune when it is much or time. Then tell how much there is.

        Raises psycopg.Error, OSError.
        """
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                if self._connection is None:
                    url = db.require_url(self._settings)
                    self._connection = await db.writer_connection(url, "dead letters")
                await self._look(self._connection)
        except BaseException:
            # It may be broken, or in the middle of a query.
            await self.close()
            raise

    async def _look(self, connection: Connection) -> None:
        now = time.monotonic()
        grown, self._newest = await _one(
            connection, query("dead_letter_growth"), {"after_letter": self._newest}
        )
        self._bytes_since += grown
        much = self._bytes_since > self._settings.dead_letter_max_total_bytes // _EARLY
        if not self._pruned_at or much or now - self._pruned_at > _TURN_S:
            if await self._prune(connection):
                self._bytes_since = 0
            self._pruned_at = now
        [size] = await _one(connection, query("dead_letter_disk_bytes"))
        metrics.DEAD_LETTER_DISK_BYTES.set(size)
        if not self._counted_at or now - self._counted_at > _COUNT_S:
            [waiting] = await _one(connection, query("count_waiting_dead_letters"))
            metrics.DEAD_LETTERS_WAITING.set(waiting)
            self._counted_at = now

    async def _prune(self, connection: Connection) -> bool:
        """Delete in bites, make the room free for new letters, and tell whether nothing is left to delete."""
        bounds = {
            "max_age_days": self._settings.dead_letter_max_age_days,
            "max_total_bytes": self._settings.dead_letter_max_total_bytes,
            "bite": _BITE,
        }
        letters = freed = bites = 0
        more = True
        while more and bites < _BITES:
            bite, in_bytes, more = await _one(connection, query("prune_dead_letters"), bounds)
            bites += 1
            letters += bite
            freed += in_bytes
            metrics.DEAD_LETTERS_PRUNED.inc(bite)
        if letters:
            await connection.execute(query("vacuum_dead_letters"))
            _log.warning("dead_letters_pruned", letters=letters, bytes=freed)
        return not more


async def _one(
    connection: Connection, statement: LiteralString, values: dict[str, Any] | None = None
) -> tuple[Any, ...]:
    [row] = await (await connection.execute(statement, values)).fetchall()
    return row

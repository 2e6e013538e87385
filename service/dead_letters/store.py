"""Dead letters in the database: found, read, counted, marked with what came of a replay, and dismissed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec

from service.db import ReadPool, fetch_all
from service.dead_letters.letter import Filters, Group, Letter, Sized, portions
from service.sql import query

# Whole letters are read so many, or so many bytes, at a time: one may have 256 KiB or, by a setting, more.
PORTION_LETTERS = 500
PORTION_BYTES = 8 * 1024 * 1024


class Letters(NamedTuple):
    """Dead letters over a pool of connections."""

    pool: ReadPool

    async def find(
        self, filters: Filters, size: int, *, resolved: bool | None = None, after: int | None = None
    ) -> list[Sized]:
        """Give which letters there are, newest first: those before `after`, if it is given."""
        values = {**_values(filters, after, size), "is_resolved": resolved}
        return [Sized(**row) for row in await fetch_all(self.pool, query("find_dead_letters"), values)]

    async def to_replay(self, filters: Filters, size: int, *, after: int | None = None) -> list[Sized]:
        """Give which letters wait, oldest first: those after `after`, if it is given.

        What a key was not allowed to send (foreign_device) is among them only if that code is asked for.
        """
        values = _values(filters, after, size)
        return [Sized(**row) for row in await fetch_all(self.pool, query("dead_letters_to_replay"), values)]

    async def sizes(self, ids: list[int]) -> list[Sized]:
        """Give how long letters are; those that do not exist (any more) are left out."""
        found = await fetch_all(self.pool, query("dead_letter_sizes"), {"letter_ids": ids})
        return [Sized(**row) for row in found]

    async def get(self, ids: list[int]) -> list[Letter]:
        """Give whole letters, oldest first; those that do not exist (any more) are left out."""
        rows = await fetch_all(self.pool, query("get_dead_letters"), {"letter_ids": ids})
        return [Letter(**row) for row in rows]

    async def newest(
        self, filters: Filters, limit: int, *, resolved: bool | None = None
    ) -> AsyncIterator[Letter]:
        """Give whole letters one by one, newest first, however many they are."""
        after = None
        while limit > 0:
            found = await self.find(filters, min(limit, PORTION_LETTERS), resolved=resolved, after=after)
            if not found:
                return
            for ids in portions(found, PORTION_LETTERS, PORTION_BYTES):
                for letter in reversed(await self.get(ids)):
                    yield letter
            after = found[-1].dead_letter_id
            limit -= len(found)

    async def mark(self, errors: dict[int, str | None]) -> None:
        """Note what came of a replay: by letter why it was refused again, or None if all in it is stored."""
        if errors:
            values = {"letter_ids": list(errors), "replay_errors": list(errors.values())}
            async with self.pool.connection() as connection:
                await connection.execute(query("mark_dead_letters"), values)

    async def dismiss(self, ids: list[int]) -> int:
        """Close those of the letters that wait; give how many they were."""
        async with self.pool.connection() as connection:
            cursor = await connection.execute(query("dismiss_dead_letters"), {"letter_ids": ids})
            row = await cursor.fetchone()
        return 0 if row is None else int(row["dismissed"])

    async def summary(self) -> list[Group]:
        """Count the letters of each code and kind."""
        return [Group(**row) for row in await fetch_all(self.pool, query("summarise_dead_letters"))]


def _values(filters: Filters, after: int | None, size: int) -> dict[str, Any]:
    return {**msgspec.structs.asdict(filters), "after_letter": after, "page_size": size}

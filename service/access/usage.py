"""When keys were last used: noted in the background, never on the way of a request."""

from __future__ import annotations

from typing import Final

from service import lifecycle, log
from service.db import ReadPool
from service.sql import query

_EVERY_S: Final = 5.0


class Usage:
    """Collects the keys that were used and writes them down some seconds later."""

    def __init__(self, pool: ReadPool) -> None:
        self._pool = pool
        self._used: set[str] = set()
        self._log = log.get("access")

    def note(self, key_id: str) -> None:
        """Remember that a key was used just now."""
        self._used.add(key_id)

    async def run(self) -> None:
        """Write down what was noted, until cancelled; what fails is tried no more: the next use comes."""
        await lifecycle.repeat(self.write, _EVERY_S, self._log, "key_use_not_noted")

    async def write(self) -> None:
        """Write down what was noted."""
        used, self._used = self._used, set()
        if used:
            async with self._pool.connection() as connection:
                await connection.execute(query("touch_api_keys"), {"key_ids": list(used)})

"""Says in the database that something was committed, so that processes with streams look at once.

Only a hint: they look every few seconds anyway. So it is said on a line of its own, after the commit and
seldom, and nobody who commits ever waits for it or learns that it failed. Within the transaction it would
take a lock that all commits with a NOTIFY share, which makes them commit one after another.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, Self

from service import db, lifecycle
from service.errors import DatabaseUnavailableError
from service.line import Line
from service.settings import Settings
from service.sql import query

# Streams tell at most once a second.
_EVERY_S: Final = 0.5
_PATIENCE_S: Final = 2.0


class Announcer:
    """Announces commits, as an async context manager; `note` that there was one."""

    def __init__(self, settings: Settings) -> None:
        self._line = Line(db.require_url(settings), "announce", _PATIENCE_S)
        self._noted = asyncio.Event()

    def note(self) -> None:
        """Remember that something was committed; costs nothing."""
        self._noted.set()

    async def __aenter__(self) -> Self:
        self._running = lifecycle.alongside(self._run())
        await self._running.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._line.close()
        await self._running.__aexit__(None, None, None)

    async def _run(self) -> None:
        while True:
            await self._noted.wait()
            self._noted.clear()
            # Where it fails whoever listens has lost the database too, and looks once it is back.
            with suppress(DatabaseUnavailableError):
                await self._line.ask(query("announce_states"))
            await asyncio.sleep(_EVERY_S)

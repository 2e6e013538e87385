"""Whether the database answers right now, for the readiness probe."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from service.line import Line
from service.settings import Settings
from service.sql import query

_PATIENCE_S: Final = 1.5


class Pulse:
    """Asks the database for a sign of life."""

    def __init__(self, settings: Settings) -> None:
        self._line = Line(settings.database_url, "health", _PATIENCE_S)
        self._question: asyncio.Task[Any] | None = None

    async def feel(self) -> None:
        """Return once the database has answered; raise DatabaseUnavailableError after 1.5 s at most.

        Whoever comes while a question is under way waits for its answer: any number of probes is one query.
        """
        question = self._question
        if question is None or question.done():
            question = self._question = asyncio.create_task(self._line.ask(query("ping")))
            # Whoever waited may have gone: nobody is left to take an error then.
            question.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await asyncio.wait({question})
        question.result()

    async def close(self) -> None:
        """Close the connection."""
        await self._line.close()

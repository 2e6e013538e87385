"""A way out for alert events, and the loop that keeps one process at a time delivering through it.

Each channel has a lock, a connection and a pace of its own: one that is slow or dead holds up no other. The
lock lives on the connection that also keeps the books, so whoever lost it can note nothing any more. When the
process dies the server frees the lock, and the next process goes on where the books stand.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Final, LiteralString, Protocol

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from service import db, log
from service.errors import is_transient
from service.settings import Settings
from service.sql import query

_STATEMENT_TIMEOUT_S: Final = 40.0
_PAUSE_S: Final = 0.2


class Books:
    """What is delivered and what is not: the connection that holds a channel's lock."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection

    async def ask(
        self, statement: LiteralString, parameters: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Run a named query; give its rows, if it has any. TimeoutError when the server is frozen."""
        async with (
            asyncio.timeout(_STATEMENT_TIMEOUT_S),
            self._connection.cursor(row_factory=dict_row) as cursor,
        ):
            await cursor.execute(statement, parameters)
            return await cursor.fetchall() if cursor.description else []

    async def take(self, number: int) -> bool:
        """Take the lock of a channel, unless another process holds it."""
        [row] = await self.ask(query("try_to_deliver"), {"channel": number})
        taken: bool = row["taken"]
        return taken

    async def wait_for_news(self, wait_s: float) -> None:
        """Wait until something may have happened, or for a while."""
        async for _ in self._connection.notifies(timeout=wait_s, stop_after=1):
            pass


class Channel(Protocol):
    """Delivers what the books say is due."""

    @property
    def name(self) -> str:
        """Name it, for logs and metrics."""

    @property
    def number(self) -> int:
        """Tell which lock is its own."""

    async def deliver(self, books: Books) -> float:
        """Deliver what is due now; give the seconds after which to look again even without news."""


async def keep_delivering(channel: Channel, settings: Settings) -> None:
    """Deliver through a channel until cancelled, whatever happens to the database or to the channel."""
    url = db.require_url(settings)
    logger = log.get("alerts").bind(channel=channel.name)
    pause_s = _PAUSE_S
    while True:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with await db.writer_connection(url, "alerts") as connection:
                await _deliver(channel, Books(connection), settings.alert_poll_s)
        except (psycopg.Error, OSError) as error:
            if not is_transient(error):
                logger.exception("delivery_failed")
            else:
                logger.warning("database_away", error=type(error).__name__, pause_s=round(pause_s, 1))
        except Exception:
            # A defect of ours must end neither the process nor the channel: the events stay in the books.
            logger.exception("delivery_failed")
        if loop.time() - began > settings.alert_poll_s:
            pause_s = _PAUSE_S
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(pause_s * 2, max(settings.alert_poll_s, settings.retry_max_s))


async def _deliver(channel: Channel, books: Books, poll_s: float) -> None:
    while True:
        if await books.take(channel.number):
            break
        await asyncio.sleep(poll_s * random.uniform(0.5, 1.0))
    await books.ask(query("listen_for_alert_events"))
    while True:
        wait_s = await channel.deliver(books)
        if wait_s > 0:
            await books.wait_for_news(min(wait_s, poll_s))

"""The hub: who listens, what they want together, and the loop that looks for it while there is anybody."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, Self

import psycopg

from service import db, lifecycle, log, metrics
from service.errors import is_transient
from service.settings import Settings
from service.stream.board import Board, News
from service.stream.look import KINDS, Eyes, Wanted, Wish
from service.stream.pace import Pace
from service.web.answers import rfc3339
from service.web.problems import Problem

# Looks: no more often than this after a hint, and this often without one.
_HINTED_S: Final = 1.0
_UNHINTED_S: Final = 3.0
# A look that is older is no beginning for a stream.
_FRESH_S: Final = 5.0
# How often it is seen whether all was told, where there is more of it than may be sent.
_BEHIND_S: Final = 0.1
_PAUSE_MAX_S: Final = 2.0
_RETRY_AFTER_S: Final = 10
# Of the connections, so that streams leave some to all others.
_SHARE: Final = 0.5


class Client:
    """One stream: what it wants, and up to which version of the board it has seen that."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.kinds = frozenset(kind for kind in KINDS if wish[kind].ids is None)
        self._ids = {kind: ids for kind in KINDS if (ids := wish[kind].ids)}
        # None until its position is fixed.
        self.seen: int | None = None
        self.ended = False
        self._stirred = asyncio.Event()

    def stir(self) -> None:
        """Have it look for news."""
        self._stirred.set()

    def end(self) -> None:
        """Have its stream end."""
        self.ended = True
        self._stirred.set()

    async def wait(self, until: float) -> None:
        """Wait until it is stirred, or a moment of the loop's clock has come."""
        timer = asyncio.get_running_loop().call_at(until, self._stirred.set)
        try:
            await self._stirred.wait()
        finally:
            timer.cancel()
        self._stirred.clear()

    def news(self, board: Board, seen: int) -> News:
        """Give what is new to it since a version."""
        return board.news_of(seen, self._ids) if self._ids else board.news(seen, self.kinds)


class Hub:
    """All streams of a process, as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._url = db.require_url(settings)
        self.clients_max = min(settings.stream_clients_max, int(settings.http_connections_max * _SHARE))
        self.board = Board()
        self.pace = Pace(settings.stream_bytes_per_s)
        # The moment of the last look that came to its end, None before the first one.
        self.as_of: datetime | None = None
        self._clients: set[Client] = set()
        # What the last look was for: of that, each later change comes onto the board.
        self._covered: Wish = dict.fromkeys(KINDS, Wanted())
        self._looked_at = -math.inf
        self._stirred = asyncio.Event()
        self._hinted = False
        self._eyes: Eyes | None = None
        self._closed = False
        # Before the next try to connect; 0 while all is well.
        self._pause_s = 0.0

    async def __aenter__(self) -> Self:
        metrics.STREAM_CLIENTS.set_function(lambda: len(self._clients))
        metrics.STREAM_CLIENTS_MAX.set(self.clients_max)
        self._running = lifecycle.alongside(self._run())
        await self._running.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        if self._eyes is not None:
            self._eyes.hang_up()
        await self._running.__aexit__(None, None, None)

    def close(self) -> None:
        """End all streams, and take no more of them."""
        self._closed = True
        for client in self._clients:
            client.end()

    @contextmanager
    def listening(self, wish: Wish) -> Iterator[Client]:
        """Add a client for the time of the block. Raises Problem 503 where there is no place for it."""
        if self._closed or len(self._clients) >= self.clients_max:
            metrics.STREAMS_REFUSED.inc()
            raise Problem(
                503,
                "too_many_streams",
                f"as many streams are open as there may be ({self.clients_max}): come back later",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
            )
        client = Client(wish)
        self._clients.add(client)
        self._stirred.set()
        try:
            yield client
        finally:
            self._clients.discard(client)

    def begin(self, client: Client) -> bool:
        """Fix a client's position, once all that it wants is looked for: what changes later is told."""
        if not self._can_begin(client):
            return False
        client.seen = self.board.version
        return True

    def _can_begin(self, client: Client) -> bool:
        # Of a look long ago it would be told all that has changed since, though it has not read it before.
        if asyncio.get_running_loop().time() - self._looked_at > _FRESH_S:
            return False
        return all(client.wish[kind].within(self._covered[kind]) for kind in KINDS)

    def _hint(self) -> None:
        self._hinted = True
        self._stirred.set()

    async def _run(self) -> None:
        """Look while there are clients, until cancelled, whatever happens to the database."""
        logger = log.get("stream")
        while True:
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))
            while not self._clients:
                # Nothing is held for nobody.
                self.board = Board()
                self._covered = dict.fromkeys(KINDS, Wanted())
                self._stirred.clear()
                await self._stirred.wait()
            try:
                async with Eyes.opened(self._url, self._hint) as self._eyes:
                    await self._follow(self._eyes)
            except (psycopg.Error, OSError) as error:
                if not is_transient(error):
                    logger.exception("look_failed")
                elif not self._pause_s:
                    logger.warning("database_away", error=type(error).__name__)
                self._pause_s = min(max(self._pause_s * 2, 0.2), _PAUSE_MAX_S)
            except Exception:
                # A defect of ours must not end it for good.
                logger.exception("look_failed")
                self._pause_s = _PAUSE_MAX_S
            finally:
                self._eyes = None

    async def _follow(self, eyes: Eyes) -> None:
        """Look again and again, as long as there are clients."""
        loop = asyncio.get_running_loop()
        while self._clients:
            began = loop.time()
            rest_s = await self._look(eyes)
            with eyes.watching():
                await self._wait(began, rest_s)

    async def _look(self, eyes: Eyes) -> float:
        wish = dict.fromkeys(KINDS, Wanted())
        for client in self._clients:
            wish = {kind: wish[kind].joined(client.wish[kind]) for kind in KINDS}
        self._hinted = False
        looked_at = asyncio.get_running_loop().time()
        moment = datetime.now(UTC)
        with metrics.STREAM_LOOK_SECONDS.time():
            rest_s = await eyes.look(wish, self.board)
        self.as_of, self._looked_at = moment, looked_at
        self._covered, self._pause_s = wish, 0.0
        metrics.STREAM_AS_OF.set(moment.timestamp())
        for client in self._clients:
            client.stir()
        return rest_s

    async def _wait(self, began: float, rest_s: float) -> None:
        """Wait for the next look: soon for a client that wants more, else for a hint or a while."""
        loop = asyncio.get_running_loop()
        while True:
            least_s = _HINTED_S if self._hinted else _UNHINTED_S
            if any(client.seen is None and not self._can_begin(client) for client in self._clients):
                least_s = 0.0
            due = began + max(least_s, rest_s)
            if least_s and self.pace.behind:
                # All that is on the board is told first. What changes faster than it can be told would
                # otherwise take the place of the rest, again and again.
                due = max(due, loop.time() + _BEHIND_S)
            self._stirred.clear()
            if loop.time() >= due:
                return
            timer = loop.call_at(due, self._stirred.set)
            try:
                await self._stirred.wait()
            finally:
                timer.cancel()

    def times(self) -> dict[str, str | None]:
        """Give the time, and the moment as of which states are known."""
        return {"time": rfc3339(datetime.now(UTC)), "asOf": rfc3339(self.as_of)}

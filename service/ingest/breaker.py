"""The circuit breaker between the writers and the database.

While it is open, intake answers at once instead of queueing what will not be stored for now, and the writers,
each of which holds a batch until it is decided, try one at a time. So a database that comes back meets
one connection, not all of them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Final

from service import metrics
from service.errors import is_transient

_FIRST_PAUSE_S: Final = 0.05


class State(IntEnum):
    """Whether the database takes what is written."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2

    @property
    def word(self) -> str:
        """Give the state as /health/ready says it."""
        return self.name.lower()


class Breaker:
    """Opens after `failures` tries in a row that may succeed later, or while one lasts longer than `stall_s`.

    Pauses between tries double up to `pause_max_s`, with jitter. It closes with the first try that the
    database answers, even with a refusal.
    """

    def __init__(self, *, failures: int, stall_s: float, pause_max_s: float) -> None:
        self._failures_max = failures
        self._stall_s = stall_s
        self._pause_max_s = pause_max_s
        self._failures = 0
        self._next_try_at = 0.0
        self._under_way: dict[object, float] = {}
        self._one_at_a_time = asyncio.Lock()

    @property
    def state(self) -> State:
        """Tell how it stands right now; a try that hangs opens it without anybody's doing."""
        if self._tripped:
            return State.HALF_OPEN if self._under_way else State.OPEN
        # A copy: /metrics of a worker asks from another thread.
        oldest = min(list(self._under_way.values()), default=None)
        if oldest is not None and time.monotonic() - oldest > self._stall_s:
            return State.OPEN
        return State.CLOSED

    @property
    def _tripped(self) -> bool:
        return self._failures >= self._failures_max

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """Wait until it is time for another try, and note how the try in the body ends."""
        if not self._failures:
            async with self._noted():
                yield
            return
        async with self._one_at_a_time:
            # Whoever waited here for a try that went well need not wait any longer.
            if self._failures:
                await asyncio.sleep(self._next_try_at - time.monotonic())
            async with self._noted():
                yield

    @asynccontextmanager
    async def _noted(self) -> AsyncIterator[None]:
        key = object()
        self._under_way[key] = time.monotonic()
        try:
            yield
        except BaseException as error:
            if is_transient(error):
                self._failed()
            elif not isinstance(error, asyncio.CancelledError):
                self._answered()
            raise
        else:
            self._answered()
        finally:
            del self._under_way[key]

    def _failed(self) -> None:
        pause_s = min(_FIRST_PAUSE_S * 2**self._failures, self._pause_max_s)
        self._failures = min(self._failures + 1, 64)
        if self._failures == self._failures_max:
            metrics.BREAKER_OPENED.inc()
        self._next_try_at = time.monotonic() + pause_s * random.uniform(0.5, 1.0)

    def _answered(self) -> None:
        self._failures = 0

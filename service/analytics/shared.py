"""Answers that are worked out once for all who ask at once, and kept for some seconds."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from time import monotonic
from typing import Final, Generic, TypeVar

T = TypeVar("T")

# However long it takes, at most a twentieth of the time goes into it; what takes longer than 3 s a bit more.
_TIMES_KEPT: Final = 20
_KEPT_MOST_S: Final = 60.0


class _Answer(Generic[T]):
    """One answer, from when it was first asked for."""

    def __init__(self, work: Callable[[], Awaitable[T]], keep_s: float) -> None:
        self._keep_s = keep_s
        self._began = monotonic()
        self._good_until: float | None = None
        # Not part of any one request: that may be given up, and others wait for the same.
        self.task = asyncio.ensure_future(work())
        self.task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[T]) -> None:
        now = monotonic()
        if task.cancelled() or task.exception() is not None:
            self._good_until = now
        else:
            took_s = now - self._began
            self._good_until = now + min(max(self._keep_s, _TIMES_KEPT * took_s), _KEPT_MOST_S)

    @property
    def is_good(self) -> bool:
        """Tell whether it is under way, or young enough."""
        return self._good_until is None or monotonic() < self._good_until


class Shared(Generic[T]):
    """Answers by key, at most so many of them: those that were asked for last.

    Each is kept for `keep_s`, or twenty times as long as it took to work it out, up to a minute.
    """

    def __init__(self, most: int, keep_s: float) -> None:
        self._most = most
        self._keep_s = keep_s
        self._answers: OrderedDict[Hashable, _Answer[T]] = OrderedDict()

    async def get(self, key: Hashable, work: Callable[[], Awaitable[T]], *, anew: bool = False) -> T:
        """Give the answer that is kept or under way, or have it worked out; always that if `anew`.

        Whoever waits for it gets its error as well; the next one to ask has it tried again.
        """
        found = self._answers.get(key)
        if anew or found is None or not found.is_good:
            found = self._answers[key] = _Answer(work, self._keep_s)
        self._answers.move_to_end(key)
        while len(self._answers) > self._most:
            self._answers.popitem(last=False)
        return await asyncio.shield(found.task)

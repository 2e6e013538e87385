"""What both ways of sending have in common, as the run sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol, Self

from service.readings import Reading
from service.simulator.progress import Progress

# A pause between tries starts here and doubles up to the most.
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


class Sender(Protocol):
    """Sends readings until each is answered: `async with sender`, `send` as they come, then `drain`.

    `batch` is how many readings it likes to get at once. Leaving the context gives up what is unanswered.
    """

    progress: Progress
    batch: int

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def send(self, readings: Sequence[Reading]) -> None:
        """Take readings, in order; waits while too many are unanswered, never for an answer as such."""

    async def drain(self, timeout_s: float) -> bool:
        """Wait until all is answered; False if that took too long."""


class Idle:
    """An event that is set while nothing is unanswered."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._event.set()
        self._open = 0

    def begin(self, count: int = 1) -> None:
        """Count what was sent."""
        self._open += count
        self._event.clear()

    def end(self, count: int = 1) -> None:
        """Count what was answered."""
        self._open -= count
        if self._open == 0:
            self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait until all is answered; False if that took too long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


def next_pause_s(pause_s: float) -> float:
    """Give the pause that follows a pause."""
    return min(2 * pause_s, LONGEST_PAUSE_S)

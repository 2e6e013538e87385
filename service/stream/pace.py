"""How much all streams of a process send at most: however many listen, ingest has the rest."""

from __future__ import annotations

import asyncio
from typing import Final

# What was not sent in a while may be sent at once, so much of it.
_SAVED_S: Final = 1.0


class Pace:
    """A number of bytes a second. Past it clients wait, one after another, and are told what is new then."""

    def __init__(self, bytes_per_s: int) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0
        self._turns = asyncio.Lock()

    async def waited(self) -> bool:
        """Wait for one's turn, and tell whether that took any time; `spend` at once what is sent then."""
        if not self.behind:
            return False
        async with self._turns:
            await asyncio.sleep(self._wait_s())
        return True

    @property
    def behind(self) -> bool:
        """Tell whether somebody has to wait."""
        return self._turns.locked() or self._wait_s() > 0

    def spend(self, sent: int) -> None:
        """Note that so many bytes are sent."""
        saved_since = asyncio.get_running_loop().time() - _SAVED_S
        self._free_at = max(self._free_at, saved_since) + sent / self._bytes_per_s

    def _wait_s(self) -> float:
        return self._free_at - asyncio.get_running_loop().time()

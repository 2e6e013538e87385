"""Room for request bodies: how large one may be, and how much all requests of a process hold at once.

Many bodies, none of them too large, would fill the memory all the same. So what they hold beyond a small
share each comes out of one budget.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import msgspec
from litestar import Request

from service.settings import Settings
from service.web.problems import Problem, unavailable

# Of each request: the number of connections bounds it, and small requests never wait behind large ones.
FREE_BYTES: Final = 64 * 1024
WAIT_S: Final = 1.0
_KEY: Final = "fleetwatt.room"


class BodyLimits(msgspec.Struct, frozen=True):
    """How large a body may be as it arrives and unpacked, in bytes, and how long it may take to arrive."""

    max_bytes: int
    max_decoded: int
    timeout_s: float

    @classmethod
    def of(cls, settings: Settings) -> BodyLimits:
        """Give the limits that the settings set."""
        return cls(
            settings.http_max_body_bytes, settings.http_max_decoded_bytes, settings.http_body_timeout_s
        )


class Budget:
    """Bytes that the bodies of all requests may hold together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        self._freed = asyncio.Event()

    async def take(self, size: int) -> None:
        """Take some bytes, waiting a moment for others to give theirs back. Raises Problem 503."""
        if self.used + size > self.most:
            try:
                async with asyncio.timeout(WAIT_S):
                    while self.used + size > self.most:
                        await self._freed.wait()
            except TimeoutError:
                raise unavailable("too many large requests at once; send again soon") from None
        self.used += size

    def give_back(self, size: int) -> None:
        """Give bytes back, and let those look who wait."""
        self.used -= size
        self._freed.set()
        self._freed = asyncio.Event()


class Room:
    """What one request may hold, and holds; `give_back` when the request ends."""

    def __init__(self, budget: Budget, limits: BodyLimits, scope: Any) -> None:
        self.limits = limits
        self._budget = budget
        self._size = 0
        self._charged = 0
        scope[_KEY] = self

    @classmethod
    def of(cls, request: Request[Any, Any, Any]) -> Room:
        """Give the room of a request."""
        room: Room = cast("Any", request.scope)[_KEY]
        return room

    async def take(self, size: int) -> None:
        """Hold some bytes more. Raises Problem 413 or 503 where there is no room for them."""
        self._size += size
        if self._size - FREE_BYTES > self._budget.most:
            raise Problem(413, "too_large", "the body needs more memory than there is for bodies: send less")
        charge = self._size - FREE_BYTES - self._charged
        if charge > 0:
            await self._budget.take(charge)
            self._charged += charge

    def give_back(self) -> None:
        """Hold nothing any longer."""
        if self._charged:
            self._budget.give_back(self._charged)
        self._size = self._charged = 0

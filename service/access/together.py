"""Look-ups by id that are wanted at the same time become one: what many ask costs the database little."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_MOST: Final = 1000


class Together(Generic[T]):
    """Collects ids while a look-up is under way, and looks them up with the next one, many at a time.

    `pause_s` is the least time from the end of one look-up to the beginning of the next one, so that their
    number is bounded, whatever is asked.
    """

    def __init__(self, look: Callable[[list[str]], Awaitable[dict[str, T]]], *, pause_s: float = 0.0) -> None:
        self._look = look
        self._pause_s = pause_s
        self._waiting: dict[str, asyncio.Future[T | None]] = {}
        self._task: asyncio.Task[None] | None = None

    def ask(self, name: str) -> asyncio.Future[T | None]:
        """Give what will be found by an id, None if there is nothing; it may be left to itself.

        It raises what the look-up raises. Shield it: others may wait for the same.
        """
        found = self._waiting.get(name)
        if found is None:
            found = self._waiting[name] = asyncio.get_running_loop().create_future()
            # Whoever waited may have gone: nobody is left to take an error then.
            found.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            if self._task is None:
                self._task = asyncio.create_task(self._run())
        return found

    async def find(self, name: str) -> T | None:
        """Look something up by its id, together with whatever else is wanted now."""
        return await asyncio.shield(self.ask(name))

    async def _run(self) -> None:
        # Whoever is about to ask in this turn of the loop comes along.
        await asyncio.sleep(0)
        try:
            while self._waiting:
                await self._once(list(self._waiting)[:_MOST])
                await asyncio.sleep(self._pause_s)
        finally:
            self._task = None

    async def _once(self, names: list[str]) -> None:
        try:
            found = await self._look(names)
        except BaseException as error:
            for name in names:
                future = self._waiting.pop(name)
                if isinstance(error, Exception):
                    future.set_exception(error)
                else:
                    future.cancel()
            if not isinstance(error, Exception):
                raise
        else:
            for name in names:
                self._waiting.pop(name).set_result(found.get(name))

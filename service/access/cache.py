"""What a process knows of the keys: looked up once, believed for some seconds, bounded in number."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, Generic, TypeVar

from service.access.store import KeyStore, StoredKey
from service.errors import DatabaseUnavailableError

T = TypeVar("T")

# Keys that exist: their number is the owner's choice. Ids that somebody made up get little room.
_KNOWN_MAX: Final = 50_000
_UNKNOWN_MAX: Final = 1000
# After a failed look-up the database is not asked again for a moment: requests must not pile up meanwhile.
_AWAY_S: Final = 1.0


class Believed(Generic[T]):
    """A value, and until when it is believed (monotonic clock, s)."""

    __slots__ = ("until", "used_at", "value")

    def __init__(self, value: T, until: float) -> None:
        self.value = value
        self.until = until
        # When the use of a key was last noted; see Access.
        self.used_at = float("-inf")

    @property
    def fresh(self) -> bool:
        """Tell whether it is still believed."""
        return monotonic() < self.until


class KeyCache:
    """Answers from memory for `believe_s` seconds, then from the database; one look-up serves all who wait.

    Everything raises DatabaseUnavailableError when the database has to be asked and does not answer.
    """

    def __init__(self, store: KeyStore, believe_s: float) -> None:
        self._store = store
        self._believe_s = believe_s
        self._known: OrderedDict[str, Believed[StoredKey]] = OrderedDict()
        self._unknown: OrderedDict[str, Believed[None]] = OrderedDict()
        self._on: Believed[bool] | None = None
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._away_until = 0.0

    async def keys_on(self) -> bool:
        """Tell whether there ever was a key; once there was one, that is so for good."""
        if self._on is None or not (self._on.value or self._on.fresh):
            await self._once("", self._look_whether_on)
        return self._on is not None and self._on.value

    def last_known_on(self) -> bool | None:
        """Tell what was last known of that, however long ago; None if nothing ever was."""
        return None if self._on is None else self._on.value

    async def find(self, key_id: str) -> Believed[StoredKey] | None:
        """Give a key by its id; None where there is none."""
        known = self._known.get(key_id)
        if known is None or not known.fresh:
            unknown = self._unknown.get(key_id)
            if unknown is None or not unknown.fresh:
                await self._once(key_id, lambda: self._look_up(key_id))
        return self.last_known(key_id)

    def last_known(self, key_id: str) -> Believed[StoredKey] | None:
        """Give what was last known of a key, however long ago."""
        known = self._known.get(key_id)
        if known is not None:
            self._known.move_to_end(key_id)
        return known

    def answers(self, key_id: str) -> bool:
        """Tell whether a key was seen before, or its absence is known: asking again costs little."""
        unknown = self._unknown.get(key_id)
        return key_id in self._known or (unknown is not None and unknown.fresh)

    @property
    def sizes(self) -> tuple[int, int]:
        """Give how many keys are held, and how many ids that no key has."""
        return len(self._known), len(self._unknown)

    async def _once(self, name: str, look: Callable[[], Awaitable[None]]) -> None:
        """Look something up, together with whoever wants the same."""
        task = self._under_way.get(name)
        if task is None:
            if monotonic() < self._away_until:
                raise DatabaseUnavailableError("the database is away: keys cannot be checked")
            task = asyncio.create_task(self._look(name, look))
            # Whoever waited may have gone: nobody is left to take an error then.
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            self._under_way[name] = task
        # One that waits may be cancelled without taking the answer from the others.
        await asyncio.shield(task)

    async def _look(self, name: str, look: Callable[[], Awaitable[None]]) -> None:
        try:
            await look()
        except DatabaseUnavailableError:
            self._away_until = monotonic() + _AWAY_S
            raise
        finally:
            del self._under_way[name]

    async def _look_whether_on(self) -> None:
        # Believed from before the look, not after: what changes meanwhile must not be believed for longer.
        until = monotonic() + self._believe_s
        self._on = Believed(await self._store.keys_on(), until)

    async def _look_up(self, key_id: str) -> None:
        until = monotonic() + self._believe_s
        stored = await self._store.find(key_id)
        if stored is None:
            self._known.pop(key_id, None)
            self._unknown[key_id] = Believed(None, until)
            _trim(self._unknown, _UNKNOWN_MAX)
            return
        self._unknown.pop(key_id, None)
        known = Believed(stored, until)
        if key_id in self._known:
            known.used_at = self._known[key_id].used_at
        self._known[key_id] = known
        _trim(self._known, _KNOWN_MAX)


def _trim(held: OrderedDict[str, Believed[T]], most: int) -> None:
    """Forget the oldest."""
    while len(held) > most:
        held.popitem(last=False)

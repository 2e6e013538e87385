"""What a process knows of the keys: looked up once, believed for some seconds, bounded in number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final, Generic, TypeVar

from service.access.store import KeyStore, StoredKey
from service.access.together import Together
from service.errors import DatabaseUnavailableError

T = TypeVar("T")

# Keys that exist: their number is the owner's choice. Ids that somebody made up get little room.
_KNOWN_MAX: Final = 50_000
_UNKNOWN_MAX: Final = 1000
# Whoever guesses makes us look up what no key has: in no more than 50 queries a second, of 1,000 ids each.
_PAUSE_S: Final = 0.02
# After a failed look-up the database is not asked again for a moment: requests must not pile up meanwhile.
_AWAY_S: Final = 1.0


class Believed(Generic[T]):
    """A value, and until when it is believed (monotonic clock, s)."""

    __slots__ = ("until", "used_at", "value")

    def __init__(self, value: T, until: float) -> None:
        self.value = value
        self.until = until
        # When the use of a key was last noted; see Guard.
        self.used_at = float("-inf")

    @property
    def fresh(self) -> bool:
        """Tell whether it is still believed."""
        return monotonic() < self.until


class KeyCache:
    """Answers from memory for `believe_s` seconds, then from the database; one look-up serves all who wait.

    A key that is used is read again before its time is over, so nobody who goes on using one waits.
    Everything raises DatabaseUnavailableError when the database has to be asked and does not answer.
    """

    def __init__(self, store: KeyStore, believe_s: float) -> None:
        self._store = store
        self._believe_s = believe_s
        self._known: OrderedDict[str, Believed[StoredKey]] = OrderedDict()
        self._unknown: OrderedDict[str, Believed[None]] = OrderedDict()
        self._on: Believed[bool] | None = None
        self._keys: Together[StoredKey] = Together(self._look_up, pause_s=_PAUSE_S)
        self._whether_on: Together[bool] = Together(self._look_whether_on)
        self._away_until = 0.0

    async def keys_on(self) -> bool:
        """Tell whether there ever was a key; once there was one, that is so for good."""
        if self._on is None or not (self._on.value or self._on.fresh):
            await self._whether_on.find("")
        return self._on is not None and self._on.value

    def last_known_on(self) -> bool | None:
        """Tell what was last known of that, however long ago; None if nothing ever was."""
        return None if self._on is None else self._on.value

    async def find(self, key_id: str) -> Believed[StoredKey] | None:
        """Give a key by its id; None where there is none."""
        known = self._known.get(key_id)
        unknown = self._unknown.get(key_id)
        if known is not None and known.fresh:
            if known.until - monotonic() < self._believe_s / 2:
                self._keys.ask(key_id)
        elif unknown is None or not unknown.fresh:
            await self._keys.find(key_id)
        return self.last_known(key_id)

    def last_known(self, key_id: str) -> Believed[StoredKey] | None:
        """Give what was last known of a key, however long ago."""
        known = self._known.get(key_id)
        if known is not None:
            self._known.move_to_end(key_id)
        return known

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[float]:
        """Give until when an answer will be believed; while the database is away, do not ask."""
        if monotonic() < self._away_until:
            raise DatabaseUnavailableError("the database is away; try again soon")
        try:
            # From before the look, not after: what changes meanwhile must not be believed for longer.
            yield monotonic() + self._believe_s
        except DatabaseUnavailableError:
            self._away_until = monotonic() + _AWAY_S
            raise

    async def _look_whether_on(self, names: list[str]) -> dict[str, bool]:
        async with self._asking() as until:
            self._on = Believed(await self._store.keys_on(), until)
        return dict.fromkeys(names, self._on.value)

    async def _look_up(self, key_ids: list[str]) -> dict[str, StoredKey]:
        async with self._asking() as until:
            stored = await self._store.find(key_ids)
        for key_id in key_ids:
            if key_id in stored:
                known = Believed(stored[key_id], until)
                if key_id in self._known:
                    known.used_at = self._known[key_id].used_at
                self._known[key_id] = known
                self._known.move_to_end(key_id)
                self._unknown.pop(key_id, None)
            else:
                self._known.pop(key_id, None)
                self._unknown[key_id] = Believed(None, until)
        _trim(self._known, _KNOWN_MAX)
        _trim(self._unknown, _UNKNOWN_MAX)
        return stored


def _trim(held: OrderedDict[str, Believed[T]], most: int) -> None:
    """Forget the oldest."""
    while len(held) > most:
        held.popitem(last=False)

"""What a process knows of keys and sign-ins: looked up once, believed for some seconds, bounded in number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final, Generic, TypeVar

from service.access.store import KeyStore, StoredKey
from service.access.together import Together
from service.errors import DatabaseUnavailableError

T = TypeVar("T")

# Keys that exist: their number is the owner's choice. Names that somebody made up get little room.
_KNOWN_MAX: Final = 50_000
_UNKNOWN_MAX: Final = 1000
# Whoever guesses makes us look up what is not there: no more than 50 times a second, 1,000 names each.
_PAUSE_S: Final = 0.02
# After a failed look-up the database is not asked again for a moment: requests must not pile up meanwhile.
_AWAY_S: Final = 1.0


class Believed(Generic[T]):
    """A value, and until when it is believed (monotonic clock, s)."""

    __slots__ = ("until", "used_at", "value")

    def __init__(self, value: T, until: float) -> None:
        self.value = value
        self.until = until
        # When its use was last noted; see Guard.
        self.used_at = float("-inf")

    @property
    def fresh(self) -> bool:
        """Tell whether it is still believed."""
        return monotonic() < self.until


class LookUps(Generic[T]):
    """Answers by name from memory for `believe_s` seconds, then from `look`; one look serves all who wait.

    What is used is read again before its time is over, so nobody who goes on using it waits.
    Everything raises DatabaseUnavailableError when the database has to be asked and does not answer.
    """

    def __init__(self, look: Callable[[list[str]], Awaitable[dict[str, T]]], believe_s: float) -> None:
        self._look = look
        self._believe_s = believe_s
        self._known: OrderedDict[str, Believed[T]] = OrderedDict()
        self._unknown: OrderedDict[str, Believed[None]] = OrderedDict()
        self._wanted: Together[T] = Together(self._look_up, pause_s=_PAUSE_S)
        self._away_until = 0.0

    async def find(self, name: str) -> Believed[T] | None:
        """Give what has a name; None where there is nothing."""
        known = self._known.get(name)
        unknown = self._unknown.get(name)
        if known is not None and known.fresh:
            if known.until - monotonic() < self._believe_s / 2:
                self._wanted.ask(name)
        elif unknown is None or not unknown.fresh:
            await self._wanted.find(name)
        return self.last_known(name)

    def last_known(self, name: str) -> Believed[T] | None:
        """Give what was last known of a name, however long ago."""
        known = self._known.get(name)
        if known is not None:
            self._known.move_to_end(name)
        return known

    def forget(self, name: str) -> None:
        """Hold that there is nothing of this name any more."""
        self._known.pop(name, None)
        self._unknown[name] = Believed(None, monotonic() + self._believe_s)
        _trim(self._unknown, _UNKNOWN_MAX)

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

    async def _look_up(self, names: list[str]) -> dict[str, T]:
        async with self._asking() as until:
            stored = await self._look(names)
        for name in names:
            if name in stored:
                known = Believed(stored[name], until)
                if name in self._known:
                    known.used_at = self._known[name].used_at
                self._known[name] = known
                self._known.move_to_end(name)
                self._unknown.pop(name, None)
            else:
                self._known.pop(name, None)
                self._unknown[name] = Believed(None, until)
        _trim(self._known, _KNOWN_MAX)
        _trim(self._unknown, _UNKNOWN_MAX)
        return stored


class KeyCache(LookUps[StoredKey]):
    """Keys by their ids, and whether there are any."""

    def __init__(self, store: KeyStore, believe_s: float) -> None:
        super().__init__(store.find, believe_s)
        self._store = store
        self._on: Believed[bool] | None = None
        self._whether_on: Together[bool] = Together(self._look_whether_on)

    async def keys_on(self) -> bool:
        """Tell whether there ever was a key; once there was one, that is so for good."""
        if self._on is None or not (self._on.value or self._on.fresh):
            await self._whether_on.find("")
        return self._on is not None and self._on.value

    def last_known_on(self) -> bool | None:
        """Tell what was last known of that, however long ago; None if nothing ever was."""
        return None if self._on is None else self._on.value

    async def _look_whether_on(self, names: list[str]) -> dict[str, bool]:
        async with self._asking() as until:
            self._on = Believed(await self._store.keys_on(), until)
        return dict.fromkeys(names, self._on.value)


def _trim(held: OrderedDict[str, Believed[T]], most: int) -> None:
    """Forget the oldest."""
    while len(held) > most:
        held.popitem(last=False)

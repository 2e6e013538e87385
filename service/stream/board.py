"""The newest state of each device that has changed, and what of it is new to a client.

A client holds nothing but the version of the board that it has seen, so what a slow one costs does not grow:
it gets fewer events, with newer states. What clients at the same version are told is put together once for
all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from service.readings import Kind
from service.stream.said import Said
from service.web.answers import rfc3339

# States in one event.
EVENT_STATES_MAX: Final = 1000
# Events that are kept for others who have seen as much: clients that lag may all be at versions of their own.
_TOLD_MAX: Final = 50


class News(NamedTuple):
    """An event for clients, None where nothing is new to them, and the version that they have seen then."""

    said: Said | None
    version: int
    states: int = 0


class Board:
    """States as JSON, in batches: all that changed with a version. `version` is the newest one.

    A device is in one batch alone, that of its last change, so all batches together are no more than the
    devices; each holds at most as many states as an event.
    """

    def __init__(self) -> None:
        self.version = 0
        # Up to date with all transactions before this one (PostgreSQL's xid8); None: nothing was looked for.
        self.position: int | None = None
        self._batches: dict[int, tuple[Kind, dict[str, bytes]]] = {}
        self._places: dict[Kind, dict[str, int]] = {"vehicle": {}, "meter": {}}
        self._told: dict[tuple[int, frozenset[Kind]], News] = {}

    @property
    def devices(self) -> int:
        """Count the devices whose states are held."""
        return sum(map(len, self._places.values()))

    def put(self, kind: Kind, states: Iterable[tuple[str, bytes]]) -> int:
        """Take states; those that are other than before make a version. Gives how many these are.

        Call it with no more at a time than an event may hold.
        """
        places = self._places[kind]
        changed = {
            device_id: state
            for device_id, state in states
            if (place := places.get(device_id)) is None or self._batches[place][1][device_id] != state
        }
        if changed:
            self._take_out(kind, changed)
            self.version += 1
            self._batches[self.version] = kind, changed
            places.update(dict.fromkeys(changed, self.version))
            self._told.clear()
        return len(changed)

    def _take_out(self, kind: Kind, ids: Iterable[str]) -> None:
        places = self._places[kind]
        for device_id in ids:
            place = places.pop(device_id, None)
            if place is not None:
                batch = self._batches[place][1]
                del batch[device_id]
                if not batch:
                    del self._batches[place]

    def news(self, seen: int, kinds: frozenset[Kind]) -> News:
        """Give what is new since a version, the oldest first and no more than one event holds."""
        told = self._told.get((seen, kinds))
        if told is None:
            told = self._tell(seen, kinds)
            if len(self._told) < _TOLD_MAX:
                self._told[seen, kinds] = told
        return told

    def _tell(self, seen: int, kinds: frozenset[Kind]) -> News:
        newer = []
        for version in reversed(self._batches):
            if version <= seen:
                break
            newer.append(version)
        found: dict[Kind, list[bytes]] = {"vehicle": [], "meter": []}
        states = 0
        for version in reversed(newer):
            kind, batch = self._batches[version]
            if kind in kinds:
                if states + len(batch) > EVENT_STATES_MAX:
                    return News(_event(found), seen, states)
                found[kind] += batch.values()
                states += len(batch)
            seen = version
        return News(_event(found) if states else None, self.version, states)

    def news_of(self, seen: int, ids: dict[Kind, frozenset[str]]) -> News:
        """Give what is new of some devices, of no more than one event holds."""
        found: dict[Kind, list[bytes]] = {"vehicle": [], "meter": []}
        for kind, wanted in ids.items():
            places = self._places[kind]
            found[kind] = [
                self._batches[place][1][device_id]
                for device_id in wanted
                if (place := places.get(device_id, 0)) > seen
            ]
        states = sum(map(len, found.values()))
        return News(_event(found) if states else None, self.version, states)


def _event(found: dict[Kind, list[bytes]]) -> Said:
    parts = (
        b'event: states\ndata: {"time":',
        msgspec.json.encode(rfc3339(datetime.now(UTC))),
        b',"vehicles":[',
        b",".join(found["vehicle"]),
        b'],"meters":[',
        b",".join(found["meter"]),
        b"]}\n\n",
    )
    return Said(b"".join(parts))

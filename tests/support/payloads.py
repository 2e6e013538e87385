"""Payloads with repeats and contradictions, and a plain model of what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from hypothesis import strategies as st

from service.ingest.decode import decode
from service.ingest.outcome import Decoded
from service.readings import Kind, MeterReading, Reading, VehicleReading, kind_of
from tests.support.strategies import NOW, RULE, encode

Key = tuple[Kind, str, datetime]
# Hours before NOW: of a day or two, and of half a year.
_NEAR: Final = st.sampled_from([1.0, 1.5, 2.0, 13.0, 25.0])
_FAR: Final = st.sampled_from([1.0, 2.0, 25.0, 60 * 24, 60 * 24 + 1, 130 * 24, 200 * 24])
_ZONES: Final = st.sampled_from(
    [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=11))]
)
_ENERGIES: Final = st.sampled_from([0.25, 0.1, -0.0, 0.0])


@dataclass(frozen=True)
class Part:
    """One reading of a payload, or (with no energy) something that decoding refuses."""

    kind: Kind
    device: int
    hours: float
    zone: timezone
    kwh: float | None

    def of(self, prefix: str) -> Reading | dict[str, Any]:
        """Give it as a device of a test's own sends it."""
        device = f"{prefix}-{self.device}"
        if self.kwh is None:
            return {f"{self.kind}Id": device, "timestamp": "yesterday"}
        moment = (NOW - timedelta(hours=self.hours)).astimezone(self.zone)
        if self.kind == "meter":
            return MeterReading(device, moment, self.kwh, 230.0)
        return VehicleReading(device, moment, 50.0, self.kwh, 20.0)


@dataclass(frozen=True)
class Payload:
    """What one sender hands in."""

    parts: list[Part]
    atomic: bool
    keep_refused: bool

    @property
    def is_atomic(self) -> bool:
        """Tell whether it is all or nothing; one with refusals in it never comes to the writer as that."""
        return self.atomic and all(part.kwh is not None for part in self.parts)

    def decoded(self, prefix: str) -> Decoded:
        """Decode it as it comes in over HTTP."""
        return decode(encode(*(part.of(prefix) for part in self.parts)), RULE)


@dataclass
class Model:
    """The engine as a dictionary: readings one by one in the order in which they arrive, the first stays."""

    stored: dict[Key, tuple[Any, ...]] = field(default_factory=dict)
    letters: int = 0
    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0

    def take(self, decoded: Decoded, payload: Payload) -> tuple[int, int, list[int]] | list[int]:
        """Give accepted, duplicates and the indices of conflicts; of what is refused as a whole, the last."""
        new: dict[Key, tuple[Any, ...]] = {}
        accepted, duplicates, conflicts = 0, 0, []
        for index, reading in zip(decoded.indices, decoded.readings, strict=True):
            key, rest = _split(reading)
            known = self.stored.get(key, new.get(key))
            if known is None:
                new[key] = rest
                accepted += 1
            elif known == rest:
                duplicates += 1
            else:
                conflicts.append(index)
        if conflicts and payload.is_atomic:
            return conflicts
        self.stored |= new
        self.accepted += accepted
        self.duplicates += duplicates
        self.conflicts += len(conflicts)
        if payload.keep_refused:
            self.letters += len(conflicts) + len(decoded.rejections)
        return accepted, duplicates, conflicts

    def history(self, kind: Kind) -> list[tuple[Any, ...]]:
        """Give the rows of a history, in the order of keys."""
        return sorted((*key[1:], *rest) for key, rest in self.stored.items() if key[0] == kind)

    def states(self, kind: Kind) -> list[tuple[Any, ...]]:
        """Give the rows of a hot state, in the order of ids."""
        return list({row[0]: row for row in self.history(kind)}.values())


def _split(reading: Reading) -> tuple[Key, tuple[Any, ...]]:
    key = kind_of(reading), reading.device_id, reading.recorded_at.astimezone(UTC)
    if isinstance(reading, MeterReading):
        return key, (reading.kwh_consumed_ac, reading.voltage)
    return key, (reading.soc, reading.kwh_delivered_dc, reading.battery_temp)


def _payloads(
    hours: st.SearchStrategy[float], zones: st.SearchStrategy[timezone]
) -> st.SearchStrategy[Payload]:
    parts = st.builds(
        Part,
        kind=st.sampled_from(["meter", "vehicle"]),
        device=st.integers(0, 1),
        hours=hours,
        zone=zones,
        kwh=_ENERGIES | _ENERGIES | _ENERGIES | st.none(),
    )
    return st.builds(
        Payload,
        parts=st.lists(parts, min_size=1, max_size=8),
        atomic=st.integers(0, 5).map(lambda number: number == 0),
        keep_refused=st.integers(0, 3).map(lambda number: number > 0),
    )


def _rounds(payloads: st.SearchStrategy[Payload]) -> st.SearchStrategy[list[list[Payload]]]:
    return st.lists(st.lists(payloads, min_size=1, max_size=5), min_size=1, max_size=3)


# What is handed in at once, several times over.
rounds: Final = _rounds(_payloads(_NEAR, _ZONES))
far_rounds: Final = _rounds(_payloads(_FAR, st.just(UTC)).map(lambda payload: replace(payload, atomic=False)))

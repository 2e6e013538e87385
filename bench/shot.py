"""One shot: a load runs against an engine, what it cost is taken apart, what has become of it is checked."""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

from bench.engine import Counts, Database, Engine, Load, usage
from bench.results import check

_LOST_AFTER_S: Final = 30.0
_LOOK_S: Final = 0.01


class Block(NamedTuple):
    """Readings of the fleet: some minutes from one on, of so many devices of each kind, at most so many."""

    first: int
    minutes: int
    devices: int
    limit: int | None = None

    @property
    def readings(self) -> int:
        """Count them."""
        total = 2 * self.minutes * self.devices
        return total if self.limit is None else min(total, self.limit)

    def most(self, limit: int) -> Block:
        """Give its first readings, so many at most; no more minutes than that takes are made."""
        minutes = min(self.minutes, -(-limit // (2 * self.devices)))
        return Block(self.first, minutes, self.devices, limit)

    def spec(self, engine: Engine) -> dict[str, Any]:
        """Say the same to a load."""
        return {**self._asdict(), "begin": engine.begin.isoformat()}


class Shot(NamedTuple):
    """What a shot came to: readings a second, CPU by who used it (us a reading), and the load's own words."""

    per_s: float
    cpu_us: dict[str, float]
    peak_mb: float
    told: dict[str, Any]


def fire(
    engine: Engine,
    database: Database,
    processes: list[int],
    block: Block,
    how: dict[str, Any],
    *,
    repeated: bool = False,
) -> Shot:
    """Send a block, wait until all of it is committed, and check that all was stored, or all known already.

    Raises FailedError.
    """
    with Load({**block.spec(engine), **how}) as load:
        engine.settle()
        # Nothing older is sent, and a look at all of a long history would push all else out of memory.
        counts, rows = database.counts(), database.rows(engine.begin)
        parts = {"service": processes, "postgres": [engine.postgres_pid], "broker": [engine.broker_pid]}
        before = {name: _cpu_s(pids) for name, pids in parts.items()}
        began = time.perf_counter()
        load.start()
        if how["over"] == "mqtt":
            _follow(load, database, sum(counts[:2]), block.readings)
        committed = time.perf_counter()
        told = load.result()
        # Over HTTP what is answered is committed; over MQTT that is seen from outside.
        seconds = committed - began if how["over"] == "mqtt" else told["seconds"]
    used = {name: _cpu_s(pids) - before[name] for name, pids in parts.items()} | {"load": told["cpu_s"]}
    _check(database, block.readings, counts, repeated=repeated)
    stored, wanted = database.rows(engine.begin) - rows, 0 if repeated else block.readings
    check(stored == wanted, f"{wanted:,} readings were to be stored, {stored:,} are")
    return Shot(
        block.readings / seconds,
        {name: 1e6 * cpu_s / block.readings for name, cpu_s in used.items()},
        max(usage(pid).peak_bytes for pid in processes) / 1e6,
        told,
    )


def _cpu_s(processes: list[int]) -> float:
    return sum(usage(pid).cpu_s for pid in processes)


def _follow(load: Load, database: Database, before: int, readings: int) -> None:
    handled, moved = 0, time.monotonic()
    while handled < readings:
        time.sleep(_LOOK_S)
        now = database.handled() - before
        if now > handled:
            handled, moved = now, time.monotonic()
            load.tell(handled)
        check(
            time.monotonic() - moved < _LOST_AFTER_S,
            f"of {readings:,} readings sent {handled:,} are handled, and no more come; {database.counts()}",
        )


def _check(database: Database, readings: int, before: Counts, *, repeated: bool) -> None:
    now = database.counts()
    found = Counts(*(new - old for new, old in zip(now, before, strict=True)))
    wanted = Counts(0, readings, 0) if repeated else Counts(readings, 0, 0)
    check(found == wanted, f"{wanted} were expected, {found} were counted")

"""Writers and refreshes in any order: answers are exact in every snapshot on the way."""

from __future__ import annotations

import contextlib
from collections import Counter
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from service.readings import Reading
from tests.sql.test_refresh_races import START, Connection, Scene, scene
from tests.support.reckoning import HOUR
from tests.support.snapshots import insert, meter, vehicle
from tests.support.strategies import against_a_database

__all__ = ["scene"]

# What writers and refreshes may do, in any order. Hours are from the end of what is rolled up so far.
writes = st.tuples(
    st.just("write"),
    st.integers(0, 2),
    st.lists(st.integers(-30, 20).map(lambda half: half / 2), min_size=1, max_size=4),
)
ends = st.tuples(st.sampled_from(["commit", "commit", "rollback"]), st.integers(0, 2), st.none())
begins = st.tuples(st.sampled_from(["read committed", "repeatable read"]), st.integers(0, 2), st.none())
rolls = st.tuples(st.just("refresh"), st.integers(0, 6), st.none())
stops = st.tuples(
    st.just("stop before"),
    st.integers(0, 6),
    st.sampled_from(["meter_hourly", "meter_daily", "vehicle_hourly", "vehicle_daily"]),
)
frees = st.tuples(st.just("go on"), st.just(0), st.none())
schedules = st.lists(writes | ends | begins | rolls | stops | frees | writes | ends, min_size=6, max_size=16)
SURE: list[tuple[str, int, Any]] = [
    ("read committed", 2, None),
    ("write", 0, [-3.5, 1.5]),
    ("commit", 0, None),
    ("stop before", 4, "vehicle_daily"),
    ("write", 1, [-3.5, 2.5]),
    ("write", 2, [-3.0, 0.5]),
    ("commit", 1, None),
    ("go on", 0, None),
    ("commit", 2, None),
]


class Crowd:
    """Three writers, a refresh that may be stopped half-way, and somebody who asks after each step."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.rolled = 36
        self.seen: Counter[str] = Counter()
        self.count = 0
        # A writer that makes a chunk holds up all others who want it until it commits: have them all.
        for day in range(60):
            insert(scene.owner, scene.readings(24 * day, "c"))

    def readings(self, writer: int, hours: list[float]) -> list[Reading]:
        """Make readings of a device of the writer's own: with another's it would wait for the commit."""
        result: list[Reading] = []
        for distance in hours:
            self.count += 1
            moment = START + (self.rolled + distance) * HOUR + timedelta(microseconds=self.count)
            name = "abc"[writer]
            result += [meter(name, moment, self.scene.chance), vehicle(name, moment, self.scene.chance)]
        return result

    def act(self, schedule: list[tuple[str, int, Any]]) -> None:
        """Let all of it happen; then let everybody finish, and settle."""
        scene = self.scene
        writers = [scene.writer() for _ in range(3)]
        wrote: set[int] = set()
        gates = contextlib.ExitStack()
        running: tuple[Connection, Future[Any]] | None = None
        until = self.rolled
        self.seen["schedules"] += 1
        for kind, number, detail in schedule:
            if kind == "write":
                insert(writers[number], self.readings(number, detail))
                wrote.add(number)
                self.seen["late"] += any(half < 0 for half in detail)
                self.seen["meanwhile"] += running is not None and not running[1].done()
            elif kind in ("commit", "rollback"):
                getattr(writers[number], kind)()
                wrote.discard(number)
                self.seen[kind] += 1
            elif kind in ("read committed", "repeatable read"):
                if number not in wrote:
                    writers[number].rollback()
                    level = f"set transaction isolation level {kind}"
                    writers[number].execute(level.encode())
                    writers[number].execute("select * from rollup_progress")
                    self.seen[kind] += 1
            elif kind == "go on":
                gates.close()
            elif running is None or running[1].done():
                gates.close()
                until += number
                if kind == "stop before":
                    gates.enter_context(scene.gate(detail))
                running = scene.start_refresh(until)
                if not wrote:
                    self.await_refresh(*running)
            scene.check()
        gates.close()
        for number, writer in enumerate(writers):
            writer.commit() if number % 2 else writer.rollback()
            writer.close()
        if running is not None:
            running[1].result()
            running[0].close()
        self.rolled = until + 1
        # Whoever could not see how far hours were closed logged hours that still are open.
        scene.check()
        scene.refresh(self.rolled + 12)
        self.rolled += 12
        assert scene.stale() == []
        scene.check()

    def await_refresh(self, connection: Connection, refresh: Future[Any]) -> None:
        """Wait until it is done or stands before a gate."""
        with contextlib.suppress(AssertionError):
            self.scene.until_waiting(connection, refresh, "relation")
            self.seen["stopped"] += 1


@pytest.mark.timeout(240)
def test_writers_and_refreshes_in_any_order(scene: Scene) -> None:
    """Transactions that overlap refreshes in any way: answers are exact in every snapshot on the way."""
    crowd = Crowd(scene)

    @given(schedules)
    @example(SURE)
    @settings(against_a_database, max_examples=15, phases=[Phase.explicit, Phase.generate])
    def prove(schedule: list[tuple[str, int, Any]]) -> None:
        crowd.act(schedule)

    prove()
    assert min(crowd.seen[name] for name in ("late", "meanwhile", "commit", "stopped")) > 0, crowd.seen

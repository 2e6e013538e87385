"""Writers and refreshes that meet, step by step: what waits, what does not, and that nothing is ever lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel, errors
from psycopg.types.range import TimestamptzRange

from service.readings import Reading
from tests.support.reckoning import DAY, HOUR
from tests.support.servers import Postgres
from tests.support.snapshots import (
    broken_promises,
    copy,
    finish_hours,
    insert,
    meter,
    vehicle,
    wrong_answers,
    wrong_views,
)

Connection = psycopg.Connection[Any]

START = datetime(2026, 3, 1, tzinfo=UTC)
ROLLUPS = ["meter_hourly", "meter_daily", "vehicle_hourly", "vehicle_daily"]


class Scene:
    """A database with two days of history, and as many connections as a scene needs."""

    def __init__(self, postgres: Postgres, database: str, stack: ExitStack) -> None:
        self.postgres = postgres
        self.database = database
        self.stack = stack
        self.pool = stack.enter_context(ThreadPoolExecutor(6))
        self.owner = self.connect("fleetwatt_owner")
        self.chance = Random(1)

    def connect(self, role: str = "fleetwatt_service", *, autocommit: bool = True) -> Connection:
        """Open a connection that ends with the test."""
        url = self.postgres.url(role, self.database)
        return self.stack.enter_context(psycopg.connect(url, autocommit=autocommit))

    def writer(self) -> Connection:
        """Open a connection in whose transaction statements stay uncommitted until it says so."""
        return self.connect(autocommit=False)

    def readings(self, hours: float, name: str = "a") -> list[Reading]:
        """Make a meter's and a vehicle's reading, so many hours after the start."""
        moment = START + hours * HOUR + timedelta(seconds=self.chance.randrange(1, 60))
        return [meter(name, moment, self.chance), vehicle(name, moment, self.chance)]

    def refresh(self, until_hour: float) -> None:
        """Refresh when the hours up to one are finished."""
        finish_hours(self.owner, START + until_hour * HOUR)
        self.owner.execute("call refresh_rollups()")

    def start_refresh(self, until_hour: float) -> tuple[Connection, Future[Any]]:
        """Start a refresh in a thread, on a connection of its own."""
        finish_hours(self.owner, START + until_hour * HOUR)
        connection = self.connect("fleetwatt_owner")
        return connection, self.pool.submit(connection.execute, "call refresh_rollups()")

    def start(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Do something in a thread."""
        return self.pool.submit(work, *arguments)

    def until_waiting(self, connection: Connection, doing: Future[Any], kind: str) -> None:
        """Wait until a connection waits for a lock of a kind: advisory, relation, transactionid ..."""
        while not self.owner.execute(
            "select from pg_locks where pid = %s and locktype = %s and not granted",
            (connection.info.backend_pid, kind),
        ).fetchall():
            assert not doing.done(), doing.result()
            time.sleep(0.002)

    @contextmanager
    def gate(self, rollup: str) -> Iterator[None]:
        """Let nobody write a rollup meanwhile; whoever reads it may go on."""
        with self.connect("fleetwatt_owner", autocommit=False) as holder, holder.transaction():
            holder.execute(f"lock table {rollup}_stored in share row exclusive mode".encode())
            yield

    def logging_from(self) -> float:
        """Give up to where writers log, in hours from the start."""
        [(moment,)] = self.owner.execute("select min(logging_from) from rollup_progress").fetchall()
        return float((moment - START) / HOUR)

    def stale(self) -> list[tuple[str, float]]:
        """Give what the log holds, in hours from the start."""
        rows = self.owner.execute("select distinct stream, hour from rollup_stale order by 1, 2").fetchall()
        return [(stream, (hour - START) / HOUR) for stream, hour in rows]

    def check(self) -> None:
        """Hold all answers and what is trusted of the rollups against the raw rows."""
        windows = [
            (START - DAY, START + 9 * DAY),
            (START, START + DAY),
            (START + HOUR / 2, START + 40 * HOUR),
        ]
        assert wrong_answers(self.owner, ["a", "b"], windows) == []
        assert broken_promises(self.owner) == []

    def settle(self, until_hour: float) -> None:
        """Refresh once more, undisturbed: everything is rolled up, and right."""
        self.check()
        self.refresh(until_hour)
        assert self.stale() == []
        assert self.logging_from() == until_hour
        self.check()
        assert wrong_views(self.owner) == []


@pytest.fixture
def scene(postgres: Postgres, database: str) -> Iterator[Scene]:
    """Give two days of half-hourly readings, rolled up to the second day's noon.

    The meters go from one vehicle to the other every seven quarters of an hour.
    """
    with ExitStack() as stack:
        scene = Scene(postgres, database, stack)
        for name, other in ("ab", "ba"):
            changes = [START + number * 7 * HOUR / 4 for number in range(1, 31)]
            for number, (start, end) in enumerate(pairwise([*changes, None])):
                scene.owner.execute(
                    "insert into charging_session (vehicle_id, meter_id, during) values (%s, %s, %s)",
                    (other if number % 2 else name, name, TimestamptzRange(start, end)),
                )
            history = [reading for number in range(96) for reading in scene.readings(number / 2, name)]
            insert(scene.owner, history)
        scene.refresh(36)
        yield scene


@pytest.mark.parametrize("write", [insert, copy])
def test_a_writer_before_its_commit_is_waited_for(scene: Scene, write: Any) -> None:
    """Hours close only when what was written to them is committed; others write on, also to these hours."""
    first, second = scene.writer(), scene.writer()
    write(first, scene.readings(37.5))
    connection, refresh = scene.start_refresh(40)
    for _ in range(3):
        scene.until_waiting(connection, refresh, "advisory")
        write(second, scene.readings(38.5, "b"))
        second.commit()
        assert scene.logging_from() == 36
        scene.check()
    first.commit()
    refresh.result()
    # They were written before the hours closed: the refresh had them all, and there was nothing to log.
    assert scene.logging_from() == 40
    assert scene.stale() == []
    scene.check()
    assert wrong_views(scene.owner) == []


def test_a_writer_that_gives_up_is_waited_for_too(scene: Scene) -> None:
    """A rollback frees the barrier as a commit does, and its readings are nowhere."""
    writer = scene.writer()
    insert(writer, scene.readings(37.5))
    connection, refresh = scene.start_refresh(40)
    scene.until_waiting(connection, refresh, "advisory")
    writer.rollback()
    refresh.result()
    assert scene.logging_from() == 40
    scene.settle(41)


def test_a_transaction_that_began_before_the_refresh_and_writes_after_it(scene: Scene) -> None:
    """It is not waited for; what it adds to hours closed meanwhile is logged, and seen when it commits."""
    writer = scene.writer()
    writer.execute("select count(*) from meter_reading")
    scene.refresh(40)
    insert(writer, scene.readings(37.5))
    assert scene.stale() == []
    scene.check()
    writer.commit()
    assert scene.stale() == [("meter", 37.0), ("vehicle", 37.0)]
    scene.settle(40)


@pytest.mark.parametrize("isolation", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_a_writer_with_an_old_snapshot(scene: Scene, isolation: IsolationLevel) -> None:
    """A transaction that cannot see how far hours have closed since it began loses no reading either."""
    writer = scene.writer()
    writer.isolation_level = isolation
    writer.execute("select * from rollup_progress")
    scene.refresh(40)
    insert(writer, scene.readings(37.5) + scene.readings(41.5))
    writer.commit()
    scene.settle(40 if not scene.stale() else 42)
    scene.settle(44)


@pytest.mark.parametrize("rollup", ROLLUPS)
def test_late_rows_while_the_refresh_is_under_way(scene: Scene, rollup: str) -> None:
    """Stopped before each rollup in turn: rows that land in the very hours it rolls up are never lost."""
    insert(scene.owner, scene.readings(3.5) + scene.readings(30.5))
    with scene.gate(rollup):
        connection, refresh = scene.start_refresh(50)
        scene.until_waiting(connection, refresh, "relation")
        for hours in (3.5, 30.5, 37.5, 47.5, 49.5, 51.5):
            insert(scene.owner, scene.readings(hours))
            scene.check()
    refresh.result()
    assert {hour for _, hour in scene.stale()} <= {3.0, 30.0, 37.0, 47.0, 49.0}
    assert scene.stale() != []
    scene.settle(50)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_log_row_of_a_lower_number_that_commits_later(scene: Scene, end: str) -> None:
    """A refresh settles the log rows that it saw, not all below the newest: numbers precede commits."""
    early, late = scene.writer(), scene.writer()
    with ExitStack() as gates:
        # The refresh has closed its hours and is busy with meters; vehicles come after that.
        meters = gates.enter_context(ExitStack())
        meters.enter_context(scene.gate("meter_hourly"))
        insert(scene.owner, scene.readings(3.5))
        connection, refresh = scene.start_refresh(40)
        scene.until_waiting(connection, refresh, "relation")
        insert(early, scene.readings(5.5)[1:])
        insert(late, scene.readings(5.5, "b")[1:])
        late.commit()
        gates.enter_context(scene.gate("vehicle_daily"))
        meters.close()
        [(daily,)] = scene.owner.execute("select 'vehicle_daily_stored'::regclass::oid").fetchall()
        assert daily
        scene.until_waiting(connection, refresh, "relation")
        getattr(early, end)()
        scene.check()
    refresh.result()
    assert (("vehicle", 5.0) in scene.stale()) == (end == "commit")
    scene.settle(40)


def test_no_deadlock_reaches_a_writer(scene: Scene) -> None:
    """Row locks in another order than the barrier: the refresh steps back before anybody is killed."""
    insert(scene.owner, scene.readings(1.5, "c"))
    lock = "update meter_state set voltage = voltage + 1 where meter_id = 'c'"
    first, second = scene.writer(), scene.writer()
    first.execute(lock)
    insert(second, scene.readings(37.5))
    connection, refresh = scene.start_refresh(40)
    scene.until_waiting(connection, refresh, "advisory")
    waiting = scene.start(second.execute, lock)
    scene.until_waiting(second, waiting, "transactionid")
    scene.until_waiting(connection, refresh, "advisory")
    # Behind the refresh, which waits for the second writer, which waits for this one.
    insert(first, scene.readings(38.5, "b"))
    first.commit()
    waiting.result()
    second.commit()
    refresh.result()
    assert scene.logging_from() == 40
    scene.settle(40)


def test_one_refresh_at_a_time(scene: Scene) -> None:
    """A second one comes back at once and does nothing, while the first one is under way."""
    insert(scene.owner, scene.readings(3.5))
    with scene.gate("meter_daily"):
        connection, refresh = scene.start_refresh(40)
        scene.until_waiting(connection, refresh, "relation")
        before = scene.owner.execute("select * from rollup_progress order by 1").fetchall(), scene.stale()
        scene.refresh(45)
        assert (
            scene.owner.execute("select * from rollup_progress order by 1").fetchall(),
            scene.stale(),
        ) == before
        assert not refresh.done()
    refresh.result()
    scene.settle(45)


@pytest.mark.parametrize("rollup", ROLLUPS)
def test_a_refresh_that_is_killed(scene: Scene, rollup: str) -> None:
    """Its server process ended in the middle: answers stay exact, and the next refresh finishes the work."""
    insert(scene.owner, scene.readings(3.5) + scene.readings(30.5))
    with scene.gate(rollup):
        connection, refresh = scene.start_refresh(50)
        scene.until_waiting(connection, refresh, "relation")
        with scene.postgres.admin() as admin:
            admin.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            refresh.result()
        scene.check()
        insert(scene.owner, scene.readings(3.5) + scene.readings(37.5))
        scene.check()
    scene.settle(50)


@pytest.mark.parametrize("rollup", ROLLUPS)
def test_a_refresh_that_fails(scene: Scene, rollup: str) -> None:
    """A lock that it does not get: answers stay exact; once its connection is gone the next one finishes."""
    insert(scene.owner, scene.readings(3.5) + scene.readings(30.5))
    failing = scene.connect("fleetwatt_owner")
    failing.execute("set lock_timeout = '50ms'")
    finish_hours(scene.owner, START + 50 * HOUR)
    with scene.gate(rollup):
        for _ in range(2):
            with pytest.raises(errors.LockNotAvailable):
                failing.execute("call refresh_rollups()")
            scene.check()
            insert(scene.owner, scene.readings(3.5) + scene.readings(37.5))
            scene.check()
    failing.close()
    scene.settle(50)


def test_a_refresh_that_cannot_finish_its_runs(scene: Scene) -> None:
    """What it rolled up but could not settle is rolled up again: a table's rule stands in for any defect."""
    insert(scene.owner, scene.readings(3.5) + scene.readings(37.5))
    scene.owner.execute(
        "alter table rollup_progress add constraint broken check (refreshed_until <= '2026-03-02 12:00+00')"
    )
    failing = scene.connect("fleetwatt_owner")
    finish_hours(scene.owner, START + 50 * HOUR)
    with pytest.raises(errors.CheckViolation):
        failing.execute("call refresh_rollups()")
    failing.close()
    scene.check()
    insert(scene.owner, scene.readings(3.5) + scene.readings(38.5))
    scene.check()
    scene.owner.execute("alter table rollup_progress drop constraint broken")
    scene.settle(50)


def test_a_late_row_into_a_day_that_ended_in_silence(scene: Scene) -> None:
    """The run that completed its day had no row to roll up: a late one must reach the day all the same."""
    insert(scene.owner, scene.readings(48.5, "c"))
    for hour in (50, 72):
        scene.refresh(hour)
    scene.check()
    insert(scene.owner, scene.readings(66.5, "b"))
    scene.check()
    scene.settle(73)


def test_a_writer_that_comes_while_hours_close(scene: Scene) -> None:
    """It waits for the barrier, and reads up to where it logs only then, not before."""
    finish_hours(scene.owner, START + 40 * HOUR)
    closing = scene.connect("fleetwatt_owner", autocommit=False)
    closing.execute("select close_hours()")
    writer = scene.connect()
    writing = scene.start(insert, writer, scene.readings(37.5))
    scene.until_waiting(writer, writing, "advisory")
    closing.commit()
    writing.result()
    assert scene.logging_from() == 40
    assert scene.stale() == [("meter", 37.0), ("vehicle", 37.0)]
    scene.settle(40)


def test_stale_hours_come_after_new_ones(scene: Scene) -> None:
    """A late row beyond what is rolled up, after a failure, must not carry refreshed_until over a gap."""
    finish_hours(scene.owner, START + 50 * HOUR)
    failing = scene.connect("fleetwatt_owner")
    failing.execute("set lock_timeout = '50ms'")
    with scene.gate("meter_hourly"), pytest.raises(psycopg.errors.LockNotAvailable):
        failing.execute("call refresh_rollups()")
    failing.close()
    # Closed already, and not rolled up yet.
    insert(scene.owner, scene.readings(37.5))
    for stream in ("meter", "vehicle"):
        runs = scene.owner.execute(
            "select hour_from, cardinality(stale_ids) > 0 from rollup_work(%s)", (stream,)
        ).fetchall()
        assert [is_stale for _, is_stale in runs] == [False, False, True]
        assert runs[0][0] == START + 36 * HOUR
    scene.settle(50)


def test_what_is_logged_too_soon_waits_until_its_hour_is_closed(scene: Scene) -> None:
    """A repeatable-read writer logs open hours, too: a refresh leaves those alone."""
    writer = scene.writer()
    writer.isolation_level = IsolationLevel.REPEATABLE_READ
    insert(writer, scene.readings(37.5) + scene.readings(41.5))
    writer.commit()
    assert {hour for _, hour in scene.stale()} == {37.0, 41.0}
    scene.refresh(40)
    assert scene.stale() == [("meter", 41.0), ("vehicle", 41.0)]
    assert scene.owner.execute("select max(refreshed_until) from rollup_progress").fetchone() == (
        START + 40 * HOUR,
    )
    scene.check()
    scene.settle(42)

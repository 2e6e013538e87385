"""Every energy answer equals what plain Python reckons, whatever arrived, in any order, after any step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import Phase, example, given, settings
from psycopg import errors
from psycopg.types.range import TimestamptzRange

from service.ingest.pipeline import Pipeline
from service.ingest.streams import METER, VEHICLE, values
from service.readings import Reading, kind_of
from service.settings import Settings
from tests.support.answers import (
    made_of,
    wrong_chargers,
    wrong_edges,
    wrong_rollups,
    wrong_sessions,
    wrong_windows,
)
from tests.support.histories import Correct, History, LocalDays, Plug, Refresh, Store, Told, Trail
from tests.support.reckoning import HOUR, Book, Session, bin_of
from tests.support.snapshots import finish_hours
from tests.support.strategies import against_a_database, decoded, histories

# A busy machine takes its time.
pytestmark = pytest.mark.timeout(240)

Connection = psycopg.Connection[Any]

# Each history is told in a year of its own: refreshed_until only ever moves on.
FIRST_YEAR = 2010
# An example costs most of a second: shrinking one would take longer than anybody waits.
many = settings(against_a_database, max_examples=18, phases=[Phase.explicit, Phase.generate])
few = settings(many, max_examples=6)
MINUTES = timedelta(minutes=1)
# One history that certainly needs days, hours, raw rows and holes at once, whatever the others draw.
SURE = History(
    season=2,
    steps=[
        Store([Trail(kind, 0, -48 * HOUR, 30 * MINUTES, 120, 0) for kind in ("meter", "vehicle")], False),
        Plug(0, 0, -50 * HOUR + 7 * MINUTES, None),
        Plug(1, 0, 3 * HOUR + 7 * MINUTES, 3 * HOUR + 50 * MINUTES),
        Refresh(until=8 * HOUR),
        Store([Trail("meter", 0, -20 * HOUR, 7 * MINUTES, 30, 1)], True),
        Store(
            [Trail("vehicle", 0, -5 * HOUR, MINUTES, 80, 1), Trail("meter", 1, 3 * HOUR, MINUTES, 60, 0)],
            False,
        ),
        Correct(0, 0, 6 * HOUR + MINUTES),
        Refresh(until=12 * HOUR),
        Store([Trail("vehicle", 0, -2 * HOUR, MINUTES, 5, 1)], False),
    ],
    windows=[(-49 * HOUR, 20 * HOUR), (-47.5 * HOUR, 9 * HOUR + 13 * MINUTES), (HOUR / 3, HOUR / 2)],
    edges=[LocalDays("Europe/London", -2, 2), LocalDays("Asia/Kolkata", -2, 1)],
    zone="Europe/London",
)
# And one in which a meter passes from vehicle to vehicle and back, on the hour and within it; readings lie at
# every edge, at the end of what is rolled up too, and contradict others that are there.
HANDED_ON = History(
    season=1,
    steps=[
        Plug(0, 0, -30 * HOUR, -10 * HOUR),
        Plug(0, 1, -10 * HOUR, -4.5 * HOUR),
        Plug(0, 0, -4.5 * HOUR, None),
        Store([Trail(kind, 0, -30 * HOUR, 30 * MINUTES, 80, 0) for kind in ("meter", "vehicle")], True),
        Store([Trail("vehicle", 1, -30 * HOUR, 30 * MINUTES, 80, 0)], True),
        Refresh(until=4 * HOUR),
        Store([Trail(kind, 0, -12 * HOUR, 15 * MINUTES, 60, 1) for kind in ("meter", "vehicle")], False),
        Correct(1, 0, -6 * HOUR),
        Store([Trail("meter", 0, 4 * HOUR, HOUR, 3, 0)], False),
        Refresh(until=6 * HOUR),
    ],
    windows=[(-31 * HOUR, 8 * HOUR), (-10 * HOUR, -4.5 * HOUR), (-24 * HOUR, 4 * HOUR)],
    edges=[LocalDays("Asia/Kolkata", -2, 2), LocalDays("Europe/London", -1, 1)],
    zone="Asia/Kolkata",
)


KINDS = ("days", "hours", "raw rows", "stale hours", "all of them")


class Engine:
    """The database, and the book of what must be in it; `seen` counts what the answers were made of."""

    def __init__(
        self, service: Connection, owner: Connection, store: Callable[[list[Reading]], None]
    ) -> None:
        self.service = service
        self.owner = owner
        self.store = store
        self.year = FIRST_YEAR
        self.seen: Counter[str] = Counter()

    def tell(self, history: History) -> None:
        """Let a history happen; after each of its steps every answer must be right."""
        self.year += 1
        told = Told(history, self.year, f"y{self.year}")
        book = Book()
        self.service.execute("select set_config('timezone', %s, false)", (history.zone,))
        self.seen["histories"] += 1
        for step in history.steps:
            match step:
                case Store():
                    readings = told.readings(step)
                    book.store(readings)
                    self.store(readings)
                case Refresh():
                    self.refresh(told.at(step.until))
                    assert wrong_rollups(self.service, book) == []
                case Plug():
                    self.plug(told, book, step)
                case Correct():
                    self.correct(told, book, step)
            self.check(told, book)

    def check(self, told: Told, book: Book) -> None:
        """Ask for every window and all edges."""
        windows, edge_lists = told.windows(), told.edges()
        spans = [list(window) for window in windows]
        assert wrong_windows(self.service, book, told.vehicles, windows) == []
        for edges in edge_lists:
            assert wrong_edges(self.service, book, told.vehicles, edges) == []
            assert wrong_chargers(self.service, book, told.meters, edges) == []
        for _, end in windows:
            assert wrong_sessions(self.service, book, end) == []
        for edges in edge_lists + spans:
            parts = made_of(self.service, told.meters, told.vehicles, edges)
            self.seen.update(parts)
            self.seen["all of them"] += all(parts.values())
            self.seen["answers"] += 1

    def refresh(self, until: datetime) -> None:
        """Refresh as if the hours up to a moment were finished; none that is finished opens again."""
        finish_hours(self.owner, bin_of(until, HOUR))
        self.owner.execute("call refresh_rollups()")
        left = self.owner.execute(
            "select (select count(*) from rollup_stale), min(refreshed_until) >= %s from rollup_progress",
            (bin_of(until, HOUR),),
        ).fetchone()
        assert left == (0, True)

    def plug(self, told: Told, book: Book, step: Plug) -> None:
        """Store a session, unless its meter is taken."""
        name = f"{told.meters[0]}-{len(book.sessions)}"
        session = Session(
            name,
            told.vehicles[step.vehicle],
            told.meters[step.meter],
            told.at(step.start),
            None if step.end is None else told.at(max(step.end, step.start + timedelta(seconds=1))),
        )
        try:
            self.service.execute(
                "insert into charging_session (session_id, vehicle_id, meter_id, during) "
                "values (%s, %s, %s, %s)",
                (name, session.vehicle, session.meter, TimestamptzRange(session.start, session.end)),
            )
        except errors.ExclusionViolation:
            return
        book.sessions.append(session)

    def correct(self, told: Told, book: Book, step: Correct) -> None:
        """Give a session another vehicle and another end, unless its meter is taken by then."""
        if step.place >= len(book.sessions):
            return
        known = book.sessions[step.place]
        end = None if step.end is None else max(told.at(step.end), known.start + timedelta(seconds=1))
        session = known._replace(vehicle=told.vehicles[step.vehicle], end=end)
        try:
            self.service.execute(
                "update charging_session set vehicle_id = %s, during = %s where session_id = %s",
                (session.vehicle, TimestamptzRange(session.start, end), session.session_id),
            )
        except errors.ExclusionViolation:
            return
        book.sessions[step.place] = session


def store_by_hand(connection: Connection, readings: list[Reading]) -> None:
    """Store what is new of readings in one transaction."""
    with connection.transaction():
        for stream in (METER, VEHICLE):
            part = [reading for reading in readings if kind_of(reading) == stream.kind]
            if part:
                connection.execute(stream.insert_new, stream.columns(values(part)))


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """Give the test's database with an empty book."""
    with (
        psycopg.connect(settings.database_url, autocommit=True) as service,
        psycopg.connect(settings.migrate_database_url or "", autocommit=True) as owner,
    ):
        yield Engine(service, owner, lambda readings: store_by_hand(service, readings))


def test_every_answer_is_exact_after_every_step(engine: Engine) -> None:
    """Late rows, repeats, other sessions, refreshes: rollups plus raw rows always equal the raw sums."""

    @given(histories)
    @example(SURE)
    @example(HANDED_ON)
    @many
    def prove(history: History) -> None:
        engine.tell(history)

    prove()
    assert min(engine.seen[kind] for kind in KINDS) > 0, engine.seen


def test_every_answer_is_exact_when_the_pipeline_writes(engine: Engine, settings: Settings) -> None:
    """The same with the service's own writer: COPY, conflicts as dead letters, and the hours it logs."""
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())
        pipeline = stack.enter_context(portal.wrap_async_context_manager(Pipeline(settings, "test")))

        def store(readings: list[Reading]) -> None:
            portal.call(pipeline.submit, decoded(*readings), "test")

        engine.store = store

        @given(histories)
        @example(SURE)
        @few
        def prove(history: History) -> None:
            engine.tell(history)

        prove()
    assert min(engine.seen[kind] for kind in KINDS) > 0, engine.seen

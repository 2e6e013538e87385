"""Rolled-up parts of hours: there for every session, and exact whatever becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import psycopg
import pytest
import sqlalchemy
from alembic import command
from psycopg.types.range import TimestamptzRange

from service import migrations
from tests.support.reckoning import DAY, HOUR
from tests.support.servers import Postgres
from tests.support.snapshots import broken_promises, finish_hours, insert, meter, vehicle, wrong_answers

Connection = psycopg.Connection[Any]

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
# Hours from the start: within hours; on the hour; both ends in one hour; handed on within an hour, twice.
SESSIONS = [
    ("a", "m", 1.25, 4.5),
    ("a", "m", 5, 7),
    ("b", "m", 8.25, 8.75),
    ("a", "m", 9.5, 11.125),
    ("b", "m", 11.125, 11.5),
    ("a", "m", 11.5, 26.25),
    ("a", "n", 30.25, None),
]
PARTS = [
    ("m", 1.25, 2), ("m", 4, 4.5), ("m", 8.25, 8.75), ("m", 9.5, 10), ("m", 11, 11.125), ("m", 11.125, 11.5),
    ("m", 11.5, 12), ("m", 26, 26.25), ("n", 30.25, 31),
]  # fmt: skip
WINDOWS = [(0, 48), (0, 24), (1, 12), (1.125, 11.25), (4.25, 11.3), (8.5, 26.125), (8.3, 8.7), (30.5, 30.75)]


class Engine:
    """Two days of readings every five minutes and their sessions, rolled up to the 40th hour."""

    def __init__(self, owner: Connection) -> None:
        self.owner = owner

    def fill(self) -> None:
        """Store the readings; some hours of meter `m` are silent."""
        chance = Random(1)
        moments = [START + 5 * number * MINUTE for number in range(48 * 12)]
        silent = range(26, 30)
        insert(
            self.owner,
            [meter("m", at, chance) for at in moments if (at - START) // HOUR not in silent]
            + [meter("n", at, chance) for at in moments]
            + [vehicle(name, at, chance) for name in "ab" for at in moments],
        )

    def plug(self, vehicle_id: str, meter_id: str, start: float, end: float | None) -> str:
        """Store a session; give its id."""
        [(session_id,)] = self.owner.execute(
            "insert into charging_session (vehicle_id, meter_id, during) values (%s, %s, %s) "
            "returning session_id",
            (vehicle_id, meter_id, span(start, end)),
        )
        return str(session_id)

    def refresh(self, until: float = 40) -> None:
        """Refresh when the hours up to one are finished."""
        finish_hours(self.owner, START + until * HOUR)
        self.owner.execute("call refresh_rollups()")
        assert self.owner.execute("select from session_edge_due").fetchall() == []

    def parts(self) -> list[tuple[str, float, float]]:
        """Give the parts that are rolled up, in hours from the start."""
        rows = self.owner.execute("select meter_id, part_from, part_to from session_edge order by 1, 2, 3")
        return [(name, (start - START) / HOUR, (end - START) / HOUR) for name, start, end in rows]

    def check(self) -> None:
        """Hold every answer, in every window and hour by hour, against the raw rows."""
        for window in WINDOWS:
            asked = (START + window[0] * HOUR, START + window[1] * HOUR)
            assert wrong_answers(self.owner, ["a", "b"], [asked]) == []
        assert broken_promises(self.owner) == []
        for step in (HOUR, 3 * HOUR / 8):
            edges = [START + number * step for number in range(48)]
            for name in "ab":
                told = series(self.owner, edges, name, "billed(%s, %s)")
                assert told == series(self.owner, edges, name, RAW)

    def held(self, start: float, end: float) -> tuple[int, float]:
        """Give what is rolled up of a part of an hour of meter `m`."""
        [row] = self.owner.execute(
            "select readings, kwh_ac from session_edge "
            "where meter_id = 'm' and part_from = %s and part_to = %s",
            (START + start * HOUR, START + end * HOUR),
        )
        return int(row[0]), float(row[1])


RAW = """(
    select width_bucket(m.recorded_at, e.edges), m.meter_id, sum(m.kwh_consumed_ac), count(*)
    from (select %s::timestamptz[] as edges) as e
    cross join charging_session as s
    inner join meter_reading as m on m.meter_id = s.meter_id and s.during @> m.recorded_at
    where s.vehicle_id = %s and m.recorded_at >= e.edges[1] and m.recorded_at < e.edges[cardinality(e.edges)]
    group by 1, 2
)"""


def series(owner: Connection, edges: list[datetime], name: str, what: str) -> list[Any]:
    """Give what was billed to a vehicle, window by window."""
    statement = f"select * from {what} as b order by 1, 2"  # noqa: S608 - our own text
    return owner.execute(statement.encode(), (edges, name)).fetchall()


def span(start: float, end: float | None) -> TimestamptzRange:
    """Give a span, in hours from the start."""
    return TimestamptzRange(START + start * HOUR, None if end is None else START + end * HOUR)


@pytest.fixture
def engine(postgres: Postgres, database: str) -> Iterator[Engine]:
    """Give readings and sessions that are rolled up."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as owner:
        engine = Engine(owner)
        engine.fill()
        for session in SESSIONS:
            engine.plug(*session)
        engine.refresh()
        yield engine


def test_every_cut_hour_has_its_row(engine: Engine) -> None:
    """Hours that sessions cut at their ends, once each, also those without a reading."""
    assert engine.parts() == PARTS
    assert engine.held(26, 26.25) == (0, 0)
    engine.check()


def test_an_hour_that_is_not_over_has_none(engine: Engine) -> None:
    """What ends in an open hour is rolled up with it, not before."""
    engine.plug("b", "m", 41.5, 42.5)
    engine.refresh()
    assert engine.parts() == PARTS
    engine.check()
    engine.refresh(42)
    assert engine.parts() == sorted([*PARTS, ("m", 41.5, 42)])
    engine.check()
    engine.refresh(43)
    assert engine.parts() == sorted([*PARTS, ("m", 41.5, 42), ("m", 42, 42.5)])
    engine.check()


def test_sessions_that_come_or_change_later(engine: Engine) -> None:
    """Answers follow at once; the next refresh rolls up the parts that are new, and no hour for that."""
    before = engine.owner.execute("select stream, refreshed_hours from rollup_progress").fetchall()
    engine.plug("b", "m", 27.25, 28.5)
    engine.check()
    engine.owner.execute(
        "update charging_session set during = %s, vehicle_id = 'b' where during = %s",
        (span(1.25, 4.75), span(1.25, 4.5)),
    )
    engine.check()
    engine.owner.execute("update charging_session set meter_id = 'o' where during = %s", (span(8.25, 8.75),))
    engine.check()
    engine.owner.execute("delete from charging_session where during = %s", (span(9.5, 11.125),))
    engine.check()
    engine.refresh()
    new = {("m", 27.25, 28), ("m", 28, 28.5), ("m", 4, 4.75), ("o", 8.25, 8.75)}
    assert set(engine.parts()) == {*PARTS, *new}
    engine.check()
    assert engine.owner.execute("select stream, refreshed_hours from rollup_progress").fetchall() == before


def test_a_late_reading(engine: Engine) -> None:
    """A late reading in a part shows at once, and its hour has its parts rolled up anew."""
    readings, kwh = engine.held(4, 4.5)
    late = meter("m", START + 4.25 * HOUR + MINUTE, Random(2))
    insert(engine.owner, [late])
    engine.check()
    assert engine.held(4, 4.5) == (readings, kwh)
    # A session that changes meanwhile: what is stale is left to the refresh of its hour.
    engine.plug("b", "m", 4.5, 4.625)
    engine.check()
    engine.refresh()
    assert engine.held(4, 4.5) == (readings + 1, kwh + late.kwh_consumed_ac)
    assert ("m", 4.5, 4.625) in engine.parts()
    engine.check()


def test_parts_outlive_their_raw_rows(engine: Engine) -> None:
    """Once a day's raw rows are dropped, what was billed of it stays whole, whatever comes late."""

    def billed() -> list[Any]:
        return [
            engine.owner.execute(statement, (START, START + DAY)).fetchall()
            for statement in (
                "select kwh_ac, meter_readings from vehicle_performance('a', %s, %s)",
                "select vehicle_id, kwh_ac, meter_readings from fleet_performance(%s, %s) order by 1",
                "select vehicle_id, kwh_ac, meter_readings from pair_energy(%s, %s) order by 1",
            )
        ]

    before = billed()
    assert before[0][0][0] > 0
    for table in ("meter_reading", "vehicle_reading"):
        engine.owner.execute("select drop_chunks(%s, older_than => %s::timestamptz)", (table, START + DAY))
    assert billed() == before
    insert(engine.owner, [meter("m", START + 4.25 * HOUR + MINUTE, Random(2))])
    assert billed() == before
    # Nothing can be told of a part that was not asked for in time: not that it was nothing.
    engine.plug("b", "n", 12.25, 12.5)
    engine.refresh()
    assert ("n", 12.25, 12.5) not in engine.parts()
    assert engine.held(4, 4.5)[0] == 6


def test_all_that_waits_is_filled_in_bites(engine: Engine) -> None:
    """A call takes so many log rows, the oldest first, and tells when none is left."""
    for number in range(5):
        engine.plug("b", "o", 12 + number / 8, 12.125 + number / 8)
    for left in (3, 1, 0):
        assert engine.owner.execute("select fill_session_edges(2)").fetchall() == [(True,)]
        assert len(engine.owner.execute("select from session_edge_due").fetchall()) == left
    assert engine.owner.execute("select fill_session_edges(2)").fetchall() == [(False,)]
    assert [part for part in engine.parts() if part[0] == "o"] == [
        ("o", start, end) for start, end in pairwise(12 + number / 8 for number in range(6))
    ]
    engine.check()


def test_a_database_that_had_none(postgres: Postgres) -> None:
    """Migrated with sessions and readings in it, a database has their parts after a refresh."""
    with postgres.database(empty=True) as name:
        url = postgres.url("fleetwatt_owner", name)
        halfway = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        with halfway.connect() as connection:
            command.upgrade(migrations._config(connection), "0006")  # noqa: SLF001 - only tests go halfway
            connection.commit()
        halfway.dispose()
        with psycopg.connect(url, autocommit=True) as owner:
            engine = Engine(owner)
            engine.fill()
            for session in SESSIONS:
                engine.plug(*session)
            migrations.migrate(url)
            assert owner.execute("select count(*) from session_edge_due").fetchall() == [(len(SESSIONS),)]
            engine.check()
            engine.refresh()
            assert engine.parts() == PARTS
            engine.check()

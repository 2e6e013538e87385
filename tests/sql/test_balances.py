"""Balances: answers over the fleet are read from them, and stay exact whatever readings and sessions do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg.types.range import TimestamptzRange

from tests.support.reckoning import DAY, HOUR
from tests.support.servers import Postgres
from tests.support.snapshots import broken_promises, finish_hours, insert, meter, vehicle, wrong_answers

Connection = psycopg.Connection[Any]

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
VEHICLES = ["a", "b", "c"]
# Hours from the start. Vehicle `c` draws from two meters at once; the last session has no end.
SESSIONS = [
    ("a", "m", 1.25, 4.5),
    ("b", "n", 3, 30),
    ("c", "o", 5.5, 9),
    ("c", "p", 7, 8.25),
    ("a", "m", 50.5, None),
]
WINDOWS = [(0, 72), (0, 24), (1, 12), (24, 48), (1.125, 71.25), (4.25, 30.3), (20, 55), (50.75, 51.25)]


class Engine:
    """Three days of readings every ten minutes and their sessions, rolled up to the 60th hour."""

    def __init__(self, owner: Connection) -> None:
        self.owner = owner

    def fill(self) -> None:
        """Store the readings and the sessions."""
        chance = Random(1)
        moments = [START + 10 * number * MINUTE for number in range(72 * 6)]
        insert(self.owner, [meter(name, at, chance) for name in "mnop" for at in moments])
        insert(self.owner, [vehicle(name, at, chance) for name in VEHICLES for at in moments])
        for session in SESSIONS:
            self.plug(*session)

    def plug(self, vehicle_id: str, meter_id: str, start: float, end: float | None) -> None:
        """Store a session."""
        self.owner.execute(
            "insert into charging_session (vehicle_id, meter_id, during) values (%s, %s, %s)",
            (vehicle_id, meter_id, span(start, end)),
        )

    def refresh(self, until: float = 60) -> None:
        """Refresh when the hours up to one are finished."""
        finish_hours(self.owner, START + until * HOUR)
        self.owner.execute("call refresh_rollups()")
        assert self.due() == []

    def due(self) -> list[tuple[str | None, float, float | None]]:
        """Give what balances do not hold yet: vehicles, and spans in hours from the start."""
        rows = self.owner.execute(
            "select vehicle_id, nullif(lower(during), '-infinity'), upper(during) "
            "from balance_due order by due_id"
        ).fetchall()
        return [
            (name, float("-inf") if start is None else (start - START) / HOUR, end and (end - START) / HOUR)
            for name, start, end in rows
        ]

    def check(self) -> None:
        """Hold every answer in every window against the raw rows."""
        asked = [(START + first * HOUR, START + last * HOUR) for first, last in WINDOWS]
        assert wrong_answers(self.owner, VEHICLES, asked) == []
        assert broken_promises(self.owner) == []

    def fleet(self, first: float, last: float) -> dict[str, tuple[Any, ...]]:
        """Give the answer over the fleet."""
        rows = self.owner.execute(
            "select * from fleet_performance(%s, %s)", (START + first * HOUR, START + last * HOUR)
        ).fetchall()
        return {row[0]: row[1:] for row in rows}

    def is_read(self, table: str, first: float, last: float, vehicle_id: str = "a") -> tuple[bool, bool]:
        """Tell whether the answer over the fleet takes AC and DC from the balances of a window."""
        with self.owner.transaction(force_rollback=True):
            before = self.fleet(first, last)[vehicle_id]
            self.owner.execute(f"update {table} set kwh_ac = kwh_ac + 1, kwh_dc = kwh_dc + 1".encode())  # noqa: S608
            after = self.fleet(first, last)[vehicle_id]
        return after[0] != before[0], after[2] != before[2]


def span(start: float, end: float | None) -> TimestamptzRange:
    """Give a span, in hours from the start."""
    return TimestamptzRange(START + start * HOUR, None if end is None else START + end * HOUR)


@pytest.fixture
def engine(postgres: Postgres, database: str) -> Iterator[Engine]:
    """Give readings and sessions that are rolled up."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as owner:
        engine = Engine(owner)
        engine.fill()
        engine.refresh()
        yield engine


def test_answers_are_read_from_them(engine: Engine) -> None:
    """Whole days from those of days, other hours from those of hours, cut and open hours from neither."""
    engine.check()
    assert engine.is_read("balance_daily", 0, 48) == (True, True)
    assert engine.is_read("balance_hourly", 0, 48) == (False, False)
    assert engine.is_read("balance_hourly", 1, 12) == (True, True)
    assert engine.is_read("balance_daily", 0.5, 47.5) == (False, False)
    assert engine.is_read("balance_hourly", 51.25, 51.75) == (False, False)
    assert engine.is_read("balance_hourly", 60, 72) == (False, False)


def test_a_late_reading_leaves_its_hour_out(engine: Engine) -> None:
    """Until the hour is rolled up anew: it counts at once, and then it is in the balance."""
    for late in (meter("m", START + 2.3 * HOUR, Random(2)), vehicle("a", START + 2.3 * HOUR, Random(2))):
        insert(engine.owner, [late])
        assert engine.is_read("balance_hourly", 2, 3) == (False, False)
        assert engine.is_read("balance_hourly", 3, 4) == (True, True)
        assert engine.is_read("balance_daily", 0, 24) == (False, False)
        assert engine.is_read("balance_daily", 0, 48) == (True, True)
        engine.check()
        engine.refresh()
        assert engine.is_read("balance_hourly", 2, 3) == (True, True)
        assert engine.is_read("balance_daily", 0, 24) == (True, True)
        engine.check()


@pytest.mark.parametrize(
    ("change", "due"),
    [
        (
            "insert into charging_session (vehicle_id, meter_id, during) values ('a', 'p', {})",
            [("a", 10.5, 12.0)],
        ),
        ("delete from charging_session where meter_id = 'o'", [("c", 5.5, 9.0)]),
        (
            "update charging_session set during = {} where meter_id = 'o'",
            [("c", 5.5, 9.0), ("c", 10.5, 12.0)],
        ),
        (
            "update charging_session set vehicle_id = 'b' where meter_id = 'o'",
            [("c", 5.5, 9.0), ("b", 5.5, 9.0)],
        ),
        ("update charging_session set meter_id = 'm' where meter_id = 'o'", [("c", 5.5, 9.0)] * 2),
        ("update charging_session set updated_at = now() where meter_id = 'o'", []),
    ],
)
def test_a_session_that_changes(engine: Engine, change: str, due: list[tuple[str, float, float]]) -> None:
    """The answer follows at once, for the vehicles that it touches from elsewhere; a refresh stores it."""
    engine.owner.execute(change.replace("{}", "%(span)s").encode(), {"span": span(10.5, 12)})
    assert engine.due() == due
    engine.check()
    touched = {name for name, _, _ in due}
    for name in VEHICLES:
        assert engine.is_read("balance_daily", 0, 24, name) == (name not in touched, True)
    hours = engine.owner.execute("select stream, refreshed_hours from rollup_progress").fetchall()
    engine.refresh()
    engine.check()
    for name in VEHICLES:
        assert engine.is_read("balance_daily", 0, 24, name) == (True, True)
    assert engine.owner.execute("select stream, refreshed_hours from rollup_progress").fetchall() == hours


def test_an_end_that_moves(engine: Engine) -> None:
    """What lies between the ends is as it was: of a session that ends now nothing in the past is due."""
    engine.owner.execute(
        "update charging_session set during = %s where meter_id = 'm' and upper_inf(during)",
        (span(50.5, 66),),
    )
    assert engine.due() == [("a", 66, None)]
    assert engine.is_read("balance_daily", 24, 48) == (True, True)
    engine.check()
    engine.refresh(70)
    engine.check()
    engine.owner.execute("update charging_session set during = %s where meter_id = 'n'", (span(2.5, 31),))
    assert engine.due() == [("b", 2.5, 3), ("b", 30, 31)]
    engine.check()
    engine.refresh(70)
    engine.check()


def test_a_vehicle_that_only_drew(engine: Engine) -> None:
    """It is told of while a session is there, and no longer: not with zeros either."""
    engine.plug("d", "p", 20, 22)
    assert engine.fleet(20, 22)["d"][1:] == (12, 0, 0)
    engine.refresh()
    assert engine.fleet(20, 22)["d"][1:] == (12, 0, 0)
    engine.owner.execute("delete from charging_session where vehicle_id = 'd'")
    assert "d" not in engine.fleet(20, 22)
    engine.refresh()
    assert "d" not in engine.fleet(20, 22)
    assert engine.owner.execute("select from balance_hourly where vehicle_id = 'd'").fetchall() == []
    assert engine.owner.execute("select from balance_daily where vehicle_id = 'd'").fetchall() == []


def test_a_stream_that_lags(engine: Engine) -> None:
    """Hours that only one stream has rolled up have no balance."""
    engine.owner.execute("delete from balance_hourly where hour >= %s", (START + 50 * HOUR,))
    engine.owner.execute(
        "update rollup_progress set refreshed_until = %s where stream = 'vehicle'", (START + 50 * HOUR,)
    )
    engine.check()
    assert engine.is_read("balance_hourly", 50, 60) == (False, False)
    engine.owner.execute("select store_balances(%s, %s)", (START + 48 * HOUR, START + 60 * HOUR))
    [(last,)] = engine.owner.execute("select max(hour) from balance_hourly").fetchall()
    assert last == START + 49 * HOUR
    engine.refresh(61)
    [(last,)] = engine.owner.execute("select max(hour) from balance_hourly").fetchall()
    assert last == START + 60 * HOUR
    engine.check()


def test_days_of_which_one_stream_has_nothing(engine: Engine) -> None:
    """A refresh that comes late passes over days without a chunk of one stream: the other's energy counts."""
    chance = Random(4)
    days = [START + (72 + 24 * number) * HOUR for number in range(4)]
    insert(engine.owner, [meter("m", day + 2 * HOUR, chance) for day in days])
    insert(engine.owner, [vehicle("a", days[-1] + 2 * HOUR, chance)])
    engine.refresh(168)
    assert engine.fleet(72, 144)["a"][1:] == (3, 0, 0)
    assert engine.is_read("balance_daily", 72, 168) == (True, True)
    asked = [(START + 60 * HOUR, START + 168 * HOUR), (days[0], days[2])]
    assert wrong_answers(engine.owner, VEHICLES, asked) == []


def test_all_that_waits_is_filled_in_bites(engine: Engine) -> None:
    """A call takes so many log rows, the oldest first, and tells when none is left."""
    for number in range(5):
        engine.plug("a", "p", 12 + number, 12.5 + number)
    for left in (3, 1, 0):
        assert engine.owner.execute("select fill_balances(2)").fetchall() == [(True,)]
        assert len(engine.due()) == left
    assert engine.owner.execute("select fill_balances(2)").fetchall() == [(False,)]
    engine.check()


def test_a_history_without_them(engine: Engine) -> None:
    """What was rolled up before there were balances gets them day by day, the newest first."""
    for table in ("balance_hourly", "balance_daily"):
        engine.owner.execute(f"delete from {table}".encode())  # noqa: S608 - our own names
    # As the migration that made them does.
    engine.owner.execute(
        "insert into balance_due (during) "
        "select tstzrange('-infinity', max(refreshed_until)) from rollup_progress"
    )
    assert engine.is_read("balance_daily", 24, 48) == (False, False)
    engine.check()
    for left in (48, 24, None):
        assert engine.owner.execute("select fill_balances(100)").fetchall() == [(True,)]
        assert engine.due() == ([] if left is None else [(None, 0, left)])
        engine.check()
    assert engine.owner.execute("select fill_balances(100)").fetchall() == [(False,)]
    assert engine.is_read("balance_daily", 24, 48) == (True, True)


def test_they_outlive_their_raw_rows(engine: Engine) -> None:
    """Once a day's raw rows are dropped, answers over the fleet stay as they are, whatever comes late."""
    before = engine.fleet(0, 24)
    for table in ("meter_reading", "vehicle_reading"):
        engine.owner.execute("select drop_chunks(%s, older_than => %s::timestamptz)", (table, START + DAY))
    assert engine.fleet(0, 24) == before
    insert(engine.owner, [meter("m", START + 4.25 * HOUR + MINUTE, Random(2))])
    engine.refresh()
    assert engine.fleet(0, 24) == before

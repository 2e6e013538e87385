"""What the refresh makes of history: late rows, rows that an owner mends, rows that have been dropped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg.types.range import TimestamptzRange

from service.readings import Reading
from tests.reckoning import DAY, HOUR, Span
from tests.servers import Postgres
from tests.snapshots import (
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
DEVICES = ("a", "b")
WHOLE: Span = (START - DAY, START + 9 * DAY)


@pytest.fixture
def owner(postgres: Postgres, database: str) -> Iterator[Connection]:
    """Give a connection of the owner's role."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as connection:
        yield connection


@pytest.fixture
def service(postgres: Postgres, database: str) -> Iterator[Connection]:
    """Give a connection of the service's role."""
    with psycopg.connect(postgres.url("fleetwatt_service", database), autocommit=True) as connection:
        yield connection


def history(start: datetime, end: datetime, step: timedelta) -> list[Reading]:
    """Make readings of two meters and two vehicles at equal distances."""
    chance = Random(start.timestamp())
    moments = [start + number * step for number in range((end - start) // step)]
    return [make(name, moment, chance) for make in (meter, vehicle) for name in DEVICES for moment in moments]


@pytest.fixture
def rolled_up(owner: Connection, service: Connection) -> Connection:
    """Give the owner's connection to three days of ten-minute readings and their sessions, all rolled up."""
    for name in DEVICES:
        service.execute(
            "insert into charging_session (vehicle_id, meter_id, during) values (%s, %s, %s)",
            (name, name, TimestamptzRange(START + 7 * HOUR / 4, None)),
        )
    copy(service, history(START, START + 3 * DAY, timedelta(minutes=10)))
    refresh(owner, START + 3 * DAY)
    assert stale(owner) == []
    return owner


def refresh(owner: Connection, until: datetime) -> None:
    """Refresh when the hours up to a moment are finished."""
    finish_hours(owner, until)
    owner.execute("call refresh_rollups()")


def stale(owner: Connection) -> list[tuple[str, float]]:
    """Give what the log holds, in hours from the start."""
    rows = owner.execute("select distinct stream, hour from rollup_stale order by 1, 2").fetchall()
    return [(stream, (hour - START) / HOUR) for stream, hour in rows]


def wrong(owner: Connection) -> list[Any]:
    """List what is wrong in the answers and in what is trusted of the rollups."""
    windows = [WHOLE, (START, START + DAY), (START + HOUR / 2, START + 2 * DAY + HOUR / 3)]
    return wrong_answers(owner, list(DEVICES), windows) + broken_promises(owner)


def counted(owner: Connection, vehicle_id: str, window: Span) -> int:
    """Give how many readings of a vehicle its summary counts."""
    [(readings,)] = owner.execute(
        "select vehicle_readings from vehicle_performance(%s, %s, %s)", (vehicle_id, *window)
    ).fetchall()
    return int(readings)


def progress(owner: Connection, column: str) -> dict[str, Any]:
    """Give a column of rollup_progress by stream."""
    return {row[0]: row[1] for row in owner.execute(f"select stream, {column} from rollup_progress".encode())}  # noqa: S608 - our own names


@pytest.mark.parametrize("write", [insert, copy])
def test_late_rows_are_logged_and_rolled_up(rolled_up: Connection, service: Connection, write: Any) -> None:
    """By INSERT or COPY: exactly the finished hours that were touched are logged, then rolled up and settled."""
    chance = Random(1)
    moments = [START + HOUR / 3 + timedelta(microseconds=1), START + 30 * HOUR - timedelta(microseconds=1)]
    open_hour = START + 3 * DAY
    write(service, [vehicle("a", moment, chance) for moment in [*moments, open_hour]])
    assert stale(rolled_up) == [("vehicle", 0.0), ("vehicle", 29.0)]
    assert wrong(rolled_up) == []
    before = progress(rolled_up, "refreshed_hours")
    rolled_up.execute("call refresh_rollups()")
    after = progress(rolled_up, "refreshed_hours")
    assert (after["meter"] - before["meter"], after["vehicle"] - before["vehicle"]) == (0, 2)
    assert stale(rolled_up) == []
    assert wrong(rolled_up) == []
    assert wrong_views(rolled_up) == []


def test_what_stores_nothing_logs_nothing(rolled_up: Connection, service: Connection) -> None:
    """Repeats, a statement without rows, and a transaction that is rolled back leave the log empty."""
    insert(service, history(START, START + HOUR, timedelta(minutes=10)))
    service.execute("insert into meter_reading select * from meter_reading where false")
    with service.transaction(force_rollback=True):
        insert(service, [vehicle("a", START + timedelta(minutes=1), Random(1))])
        assert service.execute("select count(*) from rollup_stale").fetchone() == (1,)
    assert stale(rolled_up) == []
    assert wrong(rolled_up) == []


@pytest.mark.parametrize("age", ["made in time", "made later"])
def test_rollups_follow_what_the_owner_mends(rolled_up: Connection, age: str) -> None:
    """Rows that are deleted, changed or moved to another hour: exact at once, and after the next refresh."""
    if age == "made in time":
        # As if the rows had come day by day: this history was loaded in one go, long after its days.
        make_chunks_old(rolled_up)
    assert wrong(rolled_up) == []
    statements = (
        "delete from vehicle_reading where recorded_at >= %(t)s and recorded_at < %(t)s + interval '40 minutes'",
        "update meter_reading set kwh_consumed_ac = 3, voltage = 3 where recorded_at = %(t)s",
        "update meter_reading set recorded_at = recorded_at + interval '65 minutes' where recorded_at = %(t)s",
        "delete from meter_reading where meter_id = 'a' and recorded_at >= %(t)s and "
        "recorded_at < %(t)s + interval '1 hour'",
    )
    for number, statement in enumerate(statements):
        rolled_up.execute(statement.encode(), {"t": START + (5 + 7 * number) * HOUR})
        assert stale(rolled_up) != []
        assert wrong(rolled_up) == [], statement
        rolled_up.execute("call refresh_rollups()")
        assert stale(rolled_up) == []
        assert wrong(rolled_up) == [], statement
        assert wrong_views(rolled_up) == [], statement

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
from tests.support.reckoning import DAY, HOUR, Span
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
DEVICES = ("a", "b")


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


def roll_up(owner: Connection, service: Connection, start: datetime) -> None:
    """Store three days of ten-minute readings and their sessions, and roll them up."""
    for name in DEVICES:
        service.execute(
            "insert into charging_session (vehicle_id, meter_id, during) values (%s, %s, %s)",
            (name, name, TimestamptzRange(start + 7 * HOUR / 4, None)),
        )
    copy(service, history(start, start + 3 * DAY, timedelta(minutes=10)))
    refresh(owner, start + 3 * DAY)
    assert stale(owner) == []


@pytest.fixture
def rolled_up(owner: Connection, service: Connection) -> Connection:
    """Give the owner's connection to three days that are rolled up."""
    roll_up(owner, service, START)
    return owner


def refresh(owner: Connection, until: datetime) -> None:
    """Refresh when the hours up to a moment are finished."""
    finish_hours(owner, until)
    owner.execute("call refresh_rollups()")


def stale(owner: Connection) -> list[tuple[str, float]]:
    """Give what the log holds, in hours from the start."""
    rows = owner.execute("select distinct stream, hour from rollup_stale order by 1, 2").fetchall()
    return [(stream, (hour - START) / HOUR) for stream, hour in rows]


def wrong(owner: Connection, start: datetime = START) -> list[Any]:
    """List what is wrong in the answers and in what is trusted of the rollups."""
    windows = [
        (start - DAY, start + 9 * DAY),
        (start, start + DAY),
        (start + HOUR / 2, start + 2 * DAY + HOUR / 3),
    ]
    return wrong_answers(owner, list(DEVICES), windows) + broken_promises(owner)


def counted(owner: Connection, vehicle_id: str, window: Span) -> int:
    """Give how many readings of a vehicle its summary counts."""
    [(readings,)] = owner.execute(
        "select vehicle_readings from vehicle_performance(%s, %s, %s)", (vehicle_id, *window)
    ).fetchall()
    return int(readings)


def progress(owner: Connection, column: str) -> dict[str, Any]:
    """Give a column of rollup_progress by stream."""
    rows = owner.execute("select stream, to_jsonb(p) from rollup_progress as p").fetchall()
    return {stream: columns[column] for stream, columns in rows}


def stored(owner: Connection, day: datetime) -> list[Any]:
    """Give everything that is rolled up of a day."""
    return [
        owner.execute(
            f"select * from {name}_stored where {bin_} >= %s and {bin_} < %s order by 1, 2".encode(),  # noqa: S608
            (day, day + DAY),
        ).fetchall()
        for name, bin_ in (
            ("meter_hourly", "hour"),
            ("vehicle_hourly", "hour"),
            ("meter_daily", "day"),
            ("vehicle_daily", "day"),
        )
    ]


def drop_day(owner: Connection, day: datetime) -> None:
    """Drop the raw rows of a day, as retention does."""
    for table in ("meter_reading", "vehicle_reading"):
        owner.execute(
            "select drop_chunks(%s, older_than => %s::timestamptz, newer_than => %s::timestamptz)",
            (table, day + DAY, day),
        )
    assert owner.execute(
        "select count(*) from meter_reading where recorded_at >= %s and recorded_at < %s", (day, day + DAY)
    ).fetchone() == (0,)


@pytest.mark.parametrize("write", [insert, copy])
def test_late_rows_are_logged_and_rolled_up(rolled_up: Connection, service: Connection, write: Any) -> None:
    """By INSERT or COPY: exactly the finished hours that were touched are logged, rolled up and settled."""
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


@pytest.mark.parametrize("age", ["chunks older than their days", "chunks younger than their days"])
def test_rollups_follow_what_the_owner_mends(owner: Connection, service: Connection, age: str) -> None:
    """Rows that are deleted, changed or moved to another hour: exact at once, and after the next refresh."""
    tomorrow = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    start = START if age.startswith("chunks younger") else tomorrow
    roll_up(owner, service, start)
    statements = (
        "update meter_reading set kwh_consumed_ac = 3, voltage = 3 where recorded_at = %(t)s",
        "update meter_reading set recorded_at = recorded_at + interval '65 min' where recorded_at = %(t)s",
        "delete from vehicle_reading where recorded_at >= %(t)s and recorded_at < %(t)s + interval '40 min'",
        "delete from meter_reading where recorded_at >= %(t)s and recorded_at < %(t)s + interval '1 hour'",
    )
    for number, statement in enumerate(statements):
        owner.execute(statement.encode(), {"t": start + (5 + 7 * number) * HOUR})
        assert stale(owner) != [], statement
        assert wrong(owner, start) == [], statement
        owner.execute("call refresh_rollups()")
        assert stale(owner) == [], statement
        assert wrong(owner, start) == [], statement
        assert wrong_views(owner) == [], statement


def test_dropped_days_keep_their_rollups(rolled_up: Connection, service: Connection) -> None:
    """Raw rows dropped, then late ones: rollups stay, the log is settled, whole hours still answer."""
    day, night = (START, START + DAY), (START + 3 * HOUR, START + 20 * HOUR)
    before = stored(rolled_up, START)
    assert (counted(rolled_up, "a", day), counted(rolled_up, "a", night)) == (144, 102)
    drop_day(rolled_up, START)
    assert (counted(rolled_up, "a", day), counted(rolled_up, "a", night)) == (144, 102)
    chance = Random(1)
    late = START + 5 * HOUR + timedelta(minutes=5)
    insert(service, [meter("a", late, chance), vehicle("a", late, chance), vehicle("a", late + HOUR, chance)])
    assert stale(rolled_up) == [("meter", 5.0), ("vehicle", 5.0), ("vehicle", 6.0)]
    # Not even until the next refresh: the late rows are all the raw rows that these hours have.
    assert (counted(rolled_up, "a", day), counted(rolled_up, "a", night)) == (144, 102)
    rolled_up.execute("call refresh_rollups()")
    assert stale(rolled_up) == []
    assert progress(rolled_up, "kept_hours") == {"meter": 1, "vehicle": 2}
    assert stored(rolled_up, START) == before
    assert (counted(rolled_up, "a", day), counted(rolled_up, "a", night)) == (144, 102)


def test_days_beside_a_dropped_one_are_rolled_up_as_ever(rolled_up: Connection, service: Connection) -> None:
    """Late rows into the next day, and new hours, are rolled up; the dropped day is not touched by that."""
    before = stored(rolled_up, START)
    drop_day(rolled_up, START)
    late = [vehicle("a", START + hours * HOUR + timedelta(minutes=1), Random(1)) for hours in (24, 25, 80)]
    insert(service, late)
    refresh(rolled_up, START + 100 * HOUR)
    assert stale(rolled_up) == []
    assert stored(rolled_up, START) == before
    assert counted(rolled_up, "a", (START, START + DAY)) == 144
    assert counted(rolled_up, "a", (START + DAY, START + 2 * DAY)) == 146
    assert counted(rolled_up, "a", (START + 3 * DAY, START + 4 * DAY)) == 1


def test_hours_beside_a_dropped_chunk_are_rolled_up_as_ever(owner: Connection, service: Connection) -> None:
    """With chunks shorter than a day, late rows before, in and after one that is gone: the others follow."""
    for table in ("meter_reading", "vehicle_reading"):
        owner.execute("select set_chunk_time_interval(%s, interval '6 hours')", (table,))
    roll_up(owner, service, START)
    owner.execute(
        "select drop_chunks('vehicle_reading', older_than => %s::timestamptz, newer_than => %s::timestamptz)",
        (START + 12 * HOUR, START + 6 * HOUR),
    )
    chance = Random(3)
    insert(service, [vehicle("a", START + (hour + 0.01) * HOUR, chance) for hour in range(4, 14)])
    assert len(stale(owner)) == 10
    owner.execute("call refresh_rollups()")
    assert stale(owner) == []
    rows = owner.execute(
        "select readings from vehicle_hourly_stored where vehicle_id = 'a' and hour >= %s and hour < %s "
        "order by hour",
        (START + 4 * HOUR, START + 14 * HOUR),
    ).fetchall()
    assert [readings for (readings,) in rows] == [7, 7, *[6] * 6, 7, 7]


def test_a_late_row_does_not_replace_a_dropped_one(owner: Connection, service: Connection) -> None:
    """Counts cannot tell: an hour of one reading, dropped, keeps it when another one comes for that hour."""
    insert(
        service, [vehicle("a", START + timedelta(minutes=minute), Random(1)) for minute in (5, 24 * 60 + 5)]
    )
    refresh(owner, START + 3 * DAY)
    before = stored(owner, START)
    drop_day(owner, START)
    insert(service, [vehicle("a", START + timedelta(minutes=50), Random(2))])
    owner.execute("call refresh_rollups()")
    assert stale(owner) == []
    assert stored(owner, START) == before


def test_a_day_that_was_dropped_half_rolled_up_is_finished(owner: Connection, service: Connection) -> None:
    """A day whose raw rows went before its end still gets its daily rollup, of the hours there are."""
    copy(service, history(START, START + 10 * HOUR, timedelta(minutes=10)))
    refresh(owner, START + 12 * HOUR)
    drop_day(owner, START)
    refresh(owner, START + 40 * HOUR)
    assert counted(owner, "a", (START, START + DAY)) == 60
    hourly, daily = stored(owner, START)[1::2]
    assert (len(hourly), len(daily)) == (20, 2)


def test_years_without_data_cost_nothing(owner: Connection, service: Connection) -> None:
    """Only days that have a chunk are rolled up: two readings ten years apart are two days of work."""
    moments = (START - 3650 * DAY, START)
    insert(service, [make("a", moment, Random(1)) for make in (meter, vehicle) for moment in moments])
    refresh(owner, START + 2 * DAY)
    assert progress(owner, "refreshed_hours") == {"meter": 48, "vehicle": 48}
    assert wrong(owner) == []
    assert wrong_views(owner) == []


def test_deleted_rows_are_logged_by_the_hour(rolled_up: Connection) -> None:
    """A transaction that deletes many rows logs each hour about once, also after a rolled-back savepoint."""
    with rolled_up.transaction():
        with rolled_up.transaction(force_rollback=True):
            rolled_up.execute("delete from vehicle_reading where recorded_at < %s", (START + 2 * HOUR,))
        found = rolled_up.execute("delete from vehicle_reading where vehicle_id = 'a'").rowcount
    logged = stale(rolled_up)
    hours = len(set(logged))
    assert hours * 2 < found
    assert len(logged) < 2 * hours
    assert wrong(rolled_up) == []
    rolled_up.execute("call refresh_rollups()")
    assert stale(rolled_up) == []
    assert wrong(rolled_up) == []


def test_the_columnstore(rolled_up: Connection, service: Connection, edition: str) -> None:
    """Where chunks are compressed, what is added, changed and deleted is logged and rolled up as ever."""
    if edition == "apache":
        pytest.skip("this edition has no columnstore")
    for table, device in (("meter_reading", "meter_id"), ("vehicle_reading", "vehicle_id")):
        rolled_up.execute(
            f"alter table {table} set (timescaledb.enable_columnstore, timescaledb.segmentby = '{device}', "
            "timescaledb.orderby = 'recorded_at')".encode()
        )
        for (chunk,) in rolled_up.execute("select show_chunks(%s)::text", (table,)).fetchall():
            rolled_up.execute("call convert_to_columnstore(%s::regclass)", (chunk,))
    assert wrong(rolled_up) == []
    late = START + 5 * HOUR + timedelta(minutes=5, seconds=1)
    for write in (insert, copy):
        write(service, [meter("a", late, Random(1)), vehicle("a", late, Random(1))])
        late += 3 * HOUR
    moment = START + 31 * HOUR
    rolled_up.execute("update meter_reading set kwh_consumed_ac = 3 where recorded_at = %s", (moment,))
    rolled_up.execute(
        "delete from vehicle_reading where vehicle_id = 'a' and recorded_at < %s", (START + 2 * HOUR,)
    )
    rolled_up.execute("delete from meter_reading where meter_id = 'b'")
    assert ("vehicle", 0.0) in stale(rolled_up)
    assert ("meter", 31.0) in stale(rolled_up)
    assert wrong(rolled_up) == []
    rolled_up.execute("call refresh_rollups()")
    assert stale(rolled_up) == []
    assert wrong(rolled_up) == []
    assert wrong_views(rolled_up) == []


def test_a_cancelled_refresh_hinders_nobody(rolled_up: Connection, service: Connection) -> None:
    """A refresh that is cut short leaves a lock to its session; the session's next one lets go of it."""
    insert(service, [vehicle("a", START + timedelta(minutes=1, seconds=1), Random(1))])
    rolled_up.execute("alter table rollup_stale rename to away")
    with pytest.raises(psycopg.errors.UndefinedTable):
        rolled_up.execute("call refresh_rollups()")
    rolled_up.execute("alter table away rename to rollup_stale")
    rolled_up.execute("call refresh_rollups()")
    assert stale(rolled_up) == []
    held = "select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
    assert rolled_up.execute(held.encode()).fetchall() == []

"""What becomes of data as they age: nothing goes unasked, and no raw row before what it says is rolled up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg.types.range import TimestamptzRange

from service.maintenance.retention import Rules
from tests.support.reckoning import DAY, HOUR
from tests.support.servers import Postgres
from tests.support.snapshots import (
    broken_promises,
    copy,
    insert,
    meter,
    vehicle,
    wrong_answers,
    wrong_views,
)

Connection = psycopg.Connection[Any]

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START = TODAY - 40 * DAY
ROLLUPS = ("meter_hourly", "vehicle_hourly", "meter_daily", "vehicle_daily")
OFF = Rules(24, 0, 0, 0)


@pytest.fixture
def owner(postgres: Postgres, database: str) -> Iterator[Connection]:
    """Give a connection of the owner's role."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as connection:
        yield connection


@pytest.fixture
def service(postgres: Postgres, database: str) -> Iterator[Connection]:
    """Give a connection of the service's role to 35 days of six readings a day, and two sessions."""
    with psycopg.connect(postgres.url("fleetwatt_service", database), autocommit=True) as connection:
        chance = Random(1)
        moments = [START + number * 4 * HOUR + timedelta(minutes=5) for number in range(35 * 6)]
        insert(connection, [make("a", moment, chance) for make in (meter, vehicle) for moment in moments])
        for name, start, end in (
            ("old", START + HOUR / 3, START + 28 * HOUR),
            ("new", START + 30 * DAY, None),
        ):
            connection.execute(
                "insert into charging_session (session_id, vehicle_id, meter_id, during) "
                "values (%s, 'a', 'a', %s)",
                (name, TimestamptzRange(start, end)),
            )
        yield connection


def apply(owner: Connection, rules: Rules) -> bool:
    """Hand over how long data are kept."""
    [(changed,)] = owner.execute("select apply_lifecycle(%s, %s, %s, %s)", rules).fetchall()
    return bool(changed)


def days(connection: Connection, table: str) -> list[float]:
    """Give the days since START at which the chunks of a table begin."""
    rows = connection.execute(
        "select extract(epoch from range_start - %s)::float8 / 86400 from timescaledb_information.chunks "
        "where hypertable_schema = 'public' and hypertable_name = %s order by 1",
        (START, table),
    )
    return [day for (day,) in rows]


def count(connection: Connection, table: str) -> int:
    """Count the rows of a table."""
    [(rows,)] = connection.execute(f"select count(*) from {table}".encode()).fetchall()  # noqa: S608
    return int(rows)


def rolled_up(connection: Connection) -> list[Any]:
    """Give all rollups."""
    return [
        connection.execute(f"select * from {name}_stored order by 1, 2".encode()).fetchall()  # noqa: S608
        for name in ROLLUPS
    ]


def jobs(owner: Connection) -> dict[str, Any]:
    """Give the jobs of the database, the refresh aside, and what each was told."""
    rows = owner.execute("select job, hypertable, config ->> 'compress_after' from database_jobs()")
    return {f"{job} {table or ''}".strip(): told for job, table, told in rows if job != "refresh_rollups"}


def test_nothing_goes_unasked(owner: Connection, service: Connection) -> None:
    """Without settings no row is dropped, however old, no chunk is converted, and no job would do it."""
    owner.execute("call refresh_rollups()")
    before = (count(owner, "meter_reading"), rolled_up(owner))
    owner.execute("call drop_expired()")
    assert (count(owner, "meter_reading"), rolled_up(owner)) == before
    assert count(service, "expired_chunks(0, 0)") == 0
    assert jobs(owner) == {}


def test_readings_go_once_they_are_rolled_up(owner: Connection, service: Connection) -> None:
    """Of the oldest days raw rows go and nothing else does; what is rolled up answers as before."""
    assert apply(owner, Rules(24, 0, 20, 0))
    owner.execute("call drop_expired()")
    assert len(days(owner, "meter_reading")) == 35
    window = (START, START + 3 * DAY)
    owner.execute("call refresh_rollups()")
    before, edges = rolled_up(owner), count(owner, "session_edge")
    [answer] = service.execute("select * from vehicle_performance('a', %s, %s)", window).fetchall()
    owner.execute("call drop_expired()")
    for table in ("meter_reading", "vehicle_reading"):
        assert days(owner, table)[0] == 20
    assert (rolled_up(owner), count(owner, "session_edge")) == (before, edges)
    assert count(owner, "charging_session") == 2
    assert service.execute("select * from vehicle_performance('a', %s, %s)", window).fetchall() == [answer]
    recent = (START + 21 * DAY + HOUR / 2, START + 34 * DAY + HOUR / 3)
    assert wrong_answers(service, ["a"], [recent]) == []
    [(dropped, ran_at)] = owner.execute("select dropped_chunks, ran_at from lifecycle").fetchall()
    assert dropped == 40
    assert ran_at is not None


def test_a_stale_day_waits(owner: Connection, service: Connection) -> None:
    """A late reading, and a session that came late, keep their day until it is rolled up."""
    apply(owner, Rules(24, 0, 20, 0))
    owner.execute("call refresh_rollups()")
    insert(service, [meter("a", START + DAY + HOUR, Random(2))])
    service.execute(
        "insert into charging_session (vehicle_id, meter_id, during) values ('b', 'b', %s)",
        (TimestamptzRange(START + 3 * DAY + HOUR / 3, START + 3 * DAY + 2 * HOUR),),
    )
    owner.execute("call drop_expired()")
    assert days(owner, "meter_reading")[:3] == [1, 3, 20]
    owner.execute("call refresh_rollups()")
    hours = owner.execute(
        "select readings from meter_hourly_stored where hour = %s", (START + DAY + HOUR,)
    ).fetchall()
    assert hours == [(1,)]
    owner.execute("call drop_expired()")
    assert days(owner, "meter_reading")[0] == 20


@pytest.mark.parametrize("log", ["session_edge_due", "balance_due"])
def test_a_late_session_keeps_its_days(owner: Connection, service: Connection, log: str) -> None:
    """What a session that came late covers is rolled up before raw rows go, by each log that waits for it."""
    apply(owner, Rules(24, 0, 20, 0))
    owner.execute("call refresh_rollups()")
    service.execute(
        "insert into charging_session (vehicle_id, meter_id, during) values ('b', 'b', %s)",
        (TimestamptzRange(START + 3 * DAY + HOUR / 3, START + 4 * DAY + HOUR / 2),),
    )
    other = {"session_edge_due": "balance_due", "balance_due": "session_edge_due"}[log]
    owner.execute(f"delete from {other}".encode())  # noqa: S608
    owner.execute("call drop_expired()")
    assert days(owner, "meter_reading")[:3] == [3, 4, 20]
    owner.execute("call refresh_rollups()")
    owner.execute("call drop_expired()")
    assert days(owner, "meter_reading")[0] == 20


def test_rollups_go_after_their_readings(owner: Connection, service: Connection) -> None:
    """Rollups have days of their own; while raw rows of theirs are there, none of them goes."""
    apply(owner, Rules(24, 0, 15, 15))
    # A chunk of days would hold all of ours: shorter ones, so that some go.
    for width, length in (("daily", 10 * DAY), ("hourly", DAY)):
        owner.execute(
            "select set_chunk_time_interval("
            "format('%%I.%%I', d.hypertable_schema, d.hypertable_name)::regclass, %s) "
            "from timescaledb_information.dimensions as d "
            "left join timescaledb_information.continuous_aggregates as a "
            "on d.hypertable_name = a.materialization_hypertable_name "
            "where coalesce(a.view_name, d.hypertable_name) like %s",
            (length, f"%{width}%"),
        )
    owner.execute("call refresh_rollups()")
    before = rolled_up(owner)
    insert(service, [meter("a", START + HOUR, Random(2))])
    owner.execute("call drop_expired()")
    assert rolled_up(owner) == before
    assert count(owner, "session_edge") > 0
    owner.execute("call refresh_rollups()")
    owner.execute("call drop_expired()")
    for table in ("meter_hourly_stored", "vehicle_hourly_stored", "balance_hourly"):
        [(first,)] = owner.execute(f"select min(hour) from {table}".encode()).fetchall()  # noqa: S608
        # Chunks of ten days go as a whole, so some are kept for longer.
        assert START + 5 * DAY < first <= TODAY - 15 * DAY, table
    # Hours, in chunks of fewer days, go no sooner than the days that they are part of: what is left is whole.
    [(hours, whole)] = owner.execute(
        "select min(range_from) filter (where relation like '%hourly%'), "
        "min(range_from) filter (where relation like '%daily%') from rollup_chunks()"
    ).fetchall()
    assert START < hours == whole
    [(first,)] = owner.execute("select coalesce(min(hour), now()) from session_edge").fetchall()
    assert first >= hours
    recent = (TODAY - 14 * DAY + HOUR / 2, TODAY)
    assert wrong_answers(service, ["a"], [recent]) == []


@pytest.mark.usefixtures("service")
def test_a_writer_at_the_last_moment(postgres: Postgres, database: str, owner: Connection) -> None:
    """A reading that is committed while its day is about to go keeps the day until it is rolled up."""
    apply(owner, Rules(24, 0, 38, 0))
    owner.execute("call refresh_rollups()")
    url = postgres.url("fleetwatt_owner", database)
    with psycopg.connect(postgres.url("fleetwatt_service", database)) as writer:
        insert(writer, [meter("a", START + HOUR, Random(2))])

        def drop() -> None:
            with psycopg.connect(url, autocommit=True) as other:
                other.execute("call drop_expired()")

        dropping = threading.Thread(target=drop)
        dropping.start()
        waiting = "select count(*) from pg_locks where not granted and mode = 'AccessExclusiveLock'"
        while owner.execute(waiting.encode()).fetchall() == [(0,)] and dropping.is_alive():
            pass
        writer.commit()
        dropping.join()
    assert days(owner, "meter_reading")[0] == 0
    assert days(owner, "vehicle_reading")[0] == 2
    owner.execute("call refresh_rollups()")
    owner.execute("call drop_expired()")
    assert days(owner, "meter_reading")[0] == 2
    [(readings,)] = owner.execute(
        "select sum(readings) from meter_hourly_stored where hour < %s", (START + DAY,)
    ).fetchall()
    assert readings == 7


def test_what_is_read_stays(
    postgres: Postgres, database: str, owner: Connection, service: Connection
) -> None:
    """A question that lasts holds up its own chunk and no other; nobody waits behind it for long."""
    assert count(service, "meter_reading") == 35 * 6
    apply(owner, Rules(24, 0, 38, 0))
    owner.execute("call refresh_rollups()")
    with psycopg.connect(postgres.url("fleetwatt_service", database)) as reader:
        reader.execute("select count(*) from meter_reading where recorded_at < %s", (START + DAY,))
        owner.execute("call drop_expired()")
        assert days(owner, "meter_reading")[:2] == [0, 2]
    owner.execute("call drop_expired()")
    assert days(owner, "meter_reading")[0] == 2


def test_new_chunks_have_their_length(owner: Connection, service: Connection) -> None:
    """The length of chunks is that of new ones; those that are there stay as they are."""
    assert apply(owner, Rules(6, 0, 0, 0))
    assert not apply(owner, Rules(6, 0, 0, 0))
    insert(service, [meter("a", TODAY + number * 4 * HOUR, Random(1)) for number in range(-2, 3)])
    insert(service, [meter("a", START + 5 * HOUR, Random(1))])
    assert days(owner, "meter_reading")[-5:] == [34, 39.5, 39.75, 40, 40.25]
    assert len(days(owner, "meter_reading")) == 39
    owner.execute("call refresh_rollups()")
    assert wrong_answers(service, ["a"], [(START, TODAY + DAY)]) == []


def test_the_columnstore_is_exact(owner: Connection, service: Connection, edition: str) -> None:
    """Of chunks in the columnstore answers and rollups are exact, whatever comes late or is mended there."""
    if edition == "apache":
        pytest.skip("this edition has no columnstore")
    owner.execute("call refresh_rollups()")
    apply(owner, Rules(24, 7, 0, 0))
    for table in ("meter_reading", "vehicle_reading"):
        owner.execute("select compress_chunk(c) from show_chunks(%s) as c", (table,))
    chance = Random(3)
    window = (START + HOUR / 3, START + 5 * DAY + HOUR / 2)
    late = [
        make("a", START + DAY + minute * timedelta(minutes=1), chance)
        for make in (meter, vehicle)
        for minute in range(7, 60, 7)
    ]

    def check() -> None:
        assert wrong_answers(service, ["a"], [window]) == []
        assert broken_promises(owner) == []
        owner.execute("call refresh_rollups()")
        assert wrong_answers(service, ["a"], [window]) == []
        assert broken_promises(owner) == []
        assert wrong_views(owner) == []

    before = count(owner, "meter_reading")
    copy(service, late)
    assert count(owner, "rollup_stale") > 0
    check()
    insert(service, late)
    assert count(owner, "meter_reading") == before + len(late) // 2
    insert(service, [make("b", START + 2 * DAY, chance) for make in (meter, vehicle)])
    check()
    for statement in (
        "update meter_reading set kwh_consumed_ac = 3 where meter_id = 'a' and recorded_at < %s",
        "delete from vehicle_reading where vehicle_id = 'a' and recorded_at < %s",
    ):
        owner.execute(statement.encode(), (START + 12 * HOUR,))
        # Plans that are kept do not notice that rows have left the columnstore (docs/lifecycle.md).
        owner.execute("analyze meter_reading, vehicle_reading")
        check()


def test_jobs_are_what_the_settings_ask_for(owner: Connection, edition: str) -> None:
    """On Community jobs come, change and go with the settings; on Apache-2 there are none."""
    none: dict[str, Any] = {}
    drop = {"drop_expired": None}
    columnstore = {f"policy_compression {kind}_reading": "7 days" for kind in ("meter", "vehicle")}
    later = dict.fromkeys(columnstore, "9 days")
    steps = [
        (Rules(24, 7, 30, 60), columnstore | drop),
        (Rules(24, 7, 30, 60), columnstore | drop),
        (Rules(24, 9, 40, 0), later | drop),
        (Rules(24, 9, 0, 0), later),
        (Rules(24, 0, 30, 0), drop),
        (OFF, none),
    ]
    before = OFF
    for rules, expected in steps:
        assert apply(owner, rules) == (rules != before), rules
        assert jobs(owner) == (expected if edition == "community" else none), rules
        before = rules


def test_the_owner_alone_decides(owner: Connection, service: Connection, edition: str) -> None:
    """The service reads how long data are kept and, on Apache-2, drops what is due; it changes nothing."""
    for statement in (
        "select apply_lifecycle(24, 0, 1, 1)",
        "update lifecycle set raw_retention_days = 1",
        "select apply_settings('{raw_retention_days}', '{1}')",
    ):
        if "apply_settings" in statement:
            # That is another table.
            service.execute(statement.encode())
        else:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                service.execute(statement.encode())
    owner.execute("call refresh_rollups()")
    if edition == "community":
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            service.execute("call drop_expired()")
    else:
        service.execute("call drop_expired()")
    assert count(owner, "meter_reading") == 35 * 6


def test_rollups_outlive_readings_by_constraint(owner: Connection) -> None:
    """Whoever hands over days by hand cannot have rollups go before readings either."""
    for rules in (Rules(24, 0, 0, 5), Rules(24, 0, 10, 5), Rules(0, 0, 0, 0), Rules(24, 0, -1, 0)):
        with pytest.raises(psycopg.errors.CheckViolation):
            apply(owner, rules)

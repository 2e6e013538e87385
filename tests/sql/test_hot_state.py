"""The hot state is kept by the history itself: whoever adds readings, and however, leaves it right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from random import Random
from typing import Any, Final

import psycopg
import pytest

from service.ingest.streams import METER, VEHICLE, Stream, rows, values
from service.readings import MeterReading, Reading, VehicleReading
from tests.support.servers import Postgres
from tests.support.snapshots import insert_few
from tests.support.strategies import at

Connection = psycopg.Connection[tuple[Any, ...]]
Add = Callable[[Connection, Stream, list[Reading]], None]

pytestmark = pytest.mark.parametrize("stream", [METER, VEHICLE], ids=["meter", "vehicle"])

_COLUMNS: Final = {
    "meter": ("meter_id", "recorded_at", "kwh_consumed_ac", "voltage"),
    "vehicle": ("vehicle_id", "recorded_at", "soc", "kwh_delivered_dc", "battery_temp"),
}


@pytest.fixture
def owner(postgres: Postgres, database: str) -> Iterator[Connection]:
    """Connect as the owner."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as connection:
        yield connection


@pytest.fixture
def service(postgres: Postgres, database: str) -> Iterator[Connection]:
    """Connect as the service."""
    with psycopg.connect(postgres.url("fleetwatt_service", database), autocommit=True) as connection:
        yield connection


def reading(stream: Stream, device: str, minute: float, kwh: float = 0.1) -> Reading:
    """Make a reading of a kind."""
    if stream is METER:
        return MeterReading(device, at(minute), kwh, 230.5)
    return VehicleReading(device, at(minute), 50.5, kwh, 20.25)


def by_copy(connection: Connection, stream: Stream, readings: list[Reading]) -> None:
    """Add readings as the writer does at first."""
    with connection.cursor() as cursor, cursor.copy(stream.copy) as target:
        target.write(rows(values(readings)))


def by_array(connection: Connection, stream: Stream, readings: list[Reading]) -> None:
    """Add what is new of readings as the writer does after a repeat."""
    connection.execute(stream.insert_new, stream.columns(values(readings)))


def by_statement(connection: Connection, _stream: Stream, readings: list[Reading]) -> None:
    """Add readings as the writer does with a small batch."""
    insert_few(connection, readings)


def by_hand(connection: Connection, stream: Stream, readings: list[Reading], rest: str = "") -> None:
    """Add readings in one statement, as somebody with psql does."""
    columns = ", ".join(_COLUMNS[stream.kind])
    tuples = values(readings)
    one = "(" + ", ".join(["%s"] * len(tuples[0])) + ")"
    text = f"insert into {stream.kind}_reading ({columns}) values {', '.join([one] * len(tuples))} {rest}"  # noqa: S608
    connection.execute(text.encode(), [value for row in tuples for value in row])


def one_by_one(connection: Connection, stream: Stream, readings: list[Reading]) -> None:
    """Add readings each by itself, twice."""
    for each in [*readings, *readings]:
        by_hand(connection, stream, [each], "on conflict do nothing")


def states(connection: Connection, stream: Stream) -> list[tuple[Any, ...]]:
    """Give the hot state, in the order of ids."""
    columns = ", ".join(_COLUMNS[stream.kind])
    text = f"select {columns} from {stream.kind}_state order by 1"  # noqa: S608 - our own names
    return connection.execute(text.encode()).fetchall()


def newest(connection: Connection, stream: Stream) -> list[tuple[Any, ...]]:
    """Give the newest reading of each device, in the order of ids."""
    device, *others = _COLUMNS[stream.kind]
    text = (
        f"select distinct on ({device}) {device}, {', '.join(others)} "  # noqa: S608 - our own names
        f"from {stream.kind}_reading order by {device}, recorded_at desc"
    )
    return connection.execute(text.encode()).fetchall()


@pytest.mark.parametrize("role", ["fleetwatt_owner", "fleetwatt_service"])
@pytest.mark.parametrize("add", [by_copy, by_statement, by_array, by_hand, one_by_one])
def test_any_way_in_keeps_it(postgres: Postgres, database: str, stream: Stream, role: str, add: Add) -> None:
    """Many readings of a device in one statement, in any order, over days: the newest is its state."""
    chance = Random(5)
    readings = [
        reading(stream, f"d-{number % 7}", -500 * number / 7 - chance.random(), chance.random())
        for number in range(70)
    ]
    chance.shuffle(readings)
    with psycopg.connect(postgres.url(role, database), autocommit=True) as connection:
        for part in (readings[:20], readings[20:21], readings[21:]):
            add(connection, stream, part)
            found = states(connection, stream)
            assert found == newest(connection, stream)
        assert len(found) == 7


@pytest.mark.parametrize("add", [by_copy, by_statement, by_array, by_hand, one_by_one])
def test_what_comes_late_never_takes_the_place_of_what_is_newer(
    service: Connection, stream: Stream, add: Add
) -> None:
    """Not by a microsecond; and the row is not even written again."""
    add(service, stream, [reading(stream, "d-1", 0, 0.5), reading(stream, "d-2", 0, 0.5)])
    written = f"select updated_at, ctid from {stream.kind}_state order by 1, 2".encode()  # noqa: S608
    before = states(service, stream), service.execute(written).fetchall()
    microsecond = timedelta(microseconds=1) / timedelta(minutes=1)
    add(service, stream, [reading(stream, "d-1", -microsecond), reading(stream, "d-2", -10_000)])
    assert (states(service, stream), service.execute(written).fetchall()) == before
    add(service, stream, [reading(stream, "d-1", microsecond, 0.25)])
    assert states(service, stream) == newest(service, stream)
    assert states(service, stream)[0] == values([reading(stream, "d-1", microsecond, 0.25)])[0]


@pytest.mark.parametrize("add", [by_copy, by_statement, by_array, by_hand])
def test_all_that_can_come_in_one_statement(service: Connection, stream: Stream, add: Add) -> None:
    """Of devices that are known and new: one reading or several, newer, late, and both."""
    by_copy(service, stream, [reading(stream, device, 0, 0.5) for device in ("b", "d", "f", "h")])
    minutes = {"a": (1, 2), "b": (3, 1), "c": (-9,), "d": (-3,), "f": (-1, 4), "g": (5,), "h": (6,)}
    add(service, stream, [reading(stream, device, each) for device in minutes for each in minutes[device]])
    found = states(service, stream)
    assert found == newest(service, stream)
    assert [(row[0], row[1]) for row in found] == [
        (device, at(max(each) if device != "d" else 0)) for device, each in minutes.items()
    ]


def test_the_cost_is_that_of_the_devices_that_are_touched(
    owner: Connection, service: Connection, stream: Stream
) -> None:
    """However many others there are, and also where the first statement of a connection was a large one."""
    devices = [f"d-{number:04}" for number in range(3000)]
    by_copy(service, stream, [reading(stream, device, 0) for device in devices])
    owner.execute(f"vacuum analyze {stream.kind}_state".encode())
    by_copy(service, stream, [reading(stream, device, 1) for device in devices[::3]])
    looked_at = (
        "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables "
        "where relname = %s || '_state'"
    )
    chosen = [devices[0], devices[1700], devices[2999], "new"]
    for minute, few in enumerate([chosen[:3], chosen[1:2], chosen[:2], chosen], start=2):
        with service.transaction():
            [(before,)] = service.execute(looked_at, (stream.kind,)).fetchall()
            by_copy(service, stream, [reading(stream, device, minute) for device in few])
            [(after,)] = service.execute(looked_at, (stream.kind,)).fetchall()
            # Each in the walk, and where one is new, in a second one.
            assert len(few) <= after - before + 1 <= 2 * len(few)
    assert len(states(service, stream)) == 3001


def test_what_is_not_stored_is_not_told(service: Connection, stream: Stream) -> None:
    """A repeat of the newest key with other values, refused by the history, is not in the state either."""
    by_copy(service, stream, [reading(stream, "d-1", 0, 0.5)])
    again = [reading(stream, "d-1", 0, 0.75), reading(stream, "d-2", 0, 0.75)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        by_copy(service, stream, again)
    assert len(states(service, stream)) == 1
    by_array(service, stream, again)
    by_hand(service, stream, again, "on conflict do nothing")
    kept = [reading(stream, "d-1", 0, 0.5), reading(stream, "d-2", 0, 0.75)]
    assert states(service, stream) == values(kept)


@pytest.mark.parametrize("add", [by_copy, by_statement, by_array])
def test_one_transaction_holds_both(owner: Connection, service: Connection, stream: Stream, add: Add) -> None:
    """Nobody sees one without the other, and what is rolled back is gone from both."""
    add(service, stream, [reading(stream, "d-1", 0)])
    before = states(owner, stream)
    with service.transaction(force_rollback=True):
        add(service, stream, [reading(stream, "d-1", 1), reading(stream, "d-2", 1)])
        assert states(service, stream) == newest(service, stream)
        assert states(owner, stream) == newest(owner, stream) == before
    assert states(owner, stream) == newest(owner, stream) == before
    with service.transaction():
        add(service, stream, [reading(stream, "d-2", 2)])
        with service.transaction(force_rollback=True):
            add(service, stream, [reading(stream, "d-2", 3), reading(stream, "d-3", 3)])
    assert states(owner, stream) == newest(owner, stream)
    assert [row[1] for row in states(owner, stream)] == [at(0), at(2)]


@pytest.mark.parametrize("add", [by_copy, by_array, by_hand])
def test_who_may_add_history_needs_no_right_on_the_state(
    postgres: Postgres, database: str, owner: Connection, stream: Stream, add: Add
) -> None:
    """A restore by a role of its own leaves the state right."""
    owner.execute("grant usage on schema public to fleetwatt_bi")
    owner.execute(f"grant insert, select on {stream.kind}_reading to fleetwatt_bi".encode())
    with psycopg.connect(postgres.url("fleetwatt_bi", database), autocommit=True) as connection:
        add(connection, stream, [reading(stream, "d-1", 0), reading(stream, "d-1", 1)])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            states(connection, stream)
    assert states(owner, stream) == newest(owner, stream) == values([reading(stream, "d-1", 1)])


def test_history_that_ends_leaves_the_state(owner: Connection, stream: Stream) -> None:
    """Retention drops chunks; the last that was heard of a device stays."""
    by_copy(owner, stream, [reading(stream, "d-1", -5 * 1440), reading(stream, "d-2", 0)])
    before = states(owner, stream)
    owner.execute("select drop_chunks(%s, %s::timestamptz)", (f"{stream.kind}_reading", at(-2 * 1440)))
    assert len(newest(owner, stream)) == 1
    assert states(owner, stream) == before


@pytest.mark.parametrize("add", [by_copy, by_statement, by_array, by_hand])
def test_the_columnstore(
    owner: Connection, service: Connection, edition: str, stream: Stream, add: Add
) -> None:
    """What comes late for a day that is compressed is told as ever."""
    if edition == "apache":
        pytest.skip("this edition has no columnstore")
    by_copy(service, stream, [reading(stream, "d-1", minute, 0.5) for minute in range(-30, 30, 10)])
    device, *_ = _COLUMNS[stream.kind]
    owner.execute(
        f"alter table {stream.kind}_reading set (timescaledb.enable_columnstore, "
        f"timescaledb.segmentby = '{device}', timescaledb.orderby = 'recorded_at')".encode()
    )
    for (chunk,) in owner.execute("select show_chunks(%s)::text", (f"{stream.kind}_reading",)).fetchall():
        owner.execute("call convert_to_columnstore(%s::regclass)", (chunk,))
    before = states(owner, stream)
    add(service, stream, [reading(stream, "d-1", 5), reading(stream, "d-2", 5)])
    assert states(owner, stream) == [*before, *values([reading(stream, "d-2", 5)])]
    add(service, stream, [reading(stream, "d-1", 25), reading(stream, "d-1", 31), reading(stream, "d-0", 0)])
    assert states(owner, stream) == newest(owner, stream)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Give threads to wait in."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def until_waiting(owner: Connection, connection: Connection, doing: Future[None]) -> None:
    """Wait until a connection waits for a lock of another one."""
    while not owner.execute(
        "select from pg_locks where pid = %s and not granted", (connection.info.backend_pid,)
    ).fetchall():
        assert not doing.done(), doing.result()
        time.sleep(0.002)


@pytest.mark.parametrize("minutes", [(1, 2), (2, 1)], ids=["newer_last", "newer_first"])
@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
@pytest.mark.parametrize("add", [by_copy, by_statement, by_array])
def test_two_writers_in_opposite_order_do_not_deadlock(
    postgres: Postgres,
    database: str,
    owner: Connection,
    pool: ThreadPoolExecutor,
    stream: Stream,
    add: Add,
    known: bool,
    minutes: tuple[int, int],
) -> None:
    """Each writes other readings of the same devices; a gate in the middle of the ids stops the first.

    If each locked in the order in which it was given its readings, both would hold a half of the devices
    and want the other. Whoever comes last with what is older changes nothing.
    """
    devices = ["d-1", "d-2", "d-3", "d-4", "d-5"]
    by_copy(owner, stream, [reading(stream, device, 0) for device in (devices if known else ["d-3"])])
    urls = [postgres.url(role, database) for role in ("fleetwatt_owner", *["fleetwatt_service"] * 2)]
    with psycopg.connect(urls[0]) as gate, psycopg.connect(urls[1]) as one, psycopg.connect(urls[2]) as two:
        [device, *_] = _COLUMNS[stream.kind]
        lock = f"select from {stream.kind}_state where {device} = 'd-3' for update"
        gate.execute(lock.encode())

        def write(connection: Connection, order: list[str], minute: int) -> None:
            add(connection, stream, [reading(stream, each, minute) for each in order])
            connection.commit()

        first = pool.submit(write, one, devices, minutes[0])
        until_waiting(owner, one, first)
        second = pool.submit(write, two, devices[::-1], minutes[1])
        until_waiting(owner, two, second)
        gate.rollback()
        first.result()
        second.result()
    assert states(owner, stream) == newest(owner, stream)
    assert {row[1] for row in states(owner, stream)} == {at(2)}

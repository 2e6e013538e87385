"""Dead letters in the database: who may do what, what is pruned in which order, and plans of the queries."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import pytest
from psycopg import errors

from service.sql import query
from tests.sql.test_plans import plan
from tests.support.servers import Postgres

MIB: Final = 1024 * 1024
PRUNE: Final = query("prune_dead_letters")
# As the function that prunes reads them.
RESOLVED: Final = (
    "select dead_letter_id, octet_length(raw) from dead_letter where resolved_at is not null "
    "order by dead_letter_id limit 5000"
)
Connection = psycopg.Connection[Any]


@pytest.fixture
def service(postgres: Postgres, database: str) -> Iterator[Connection]:
    """Give a connection of the service's role."""
    with psycopg.connect(postgres.url("fleetwatt_service", database), autocommit=True) as connection:
        yield connection


@pytest.fixture
def owned(postgres: Postgres, database: str) -> Iterator[Connection]:
    """Give a connection of the owner's role."""
    with psycopg.connect(postgres.url("fleetwatt_owner", database), autocommit=True) as connection:
        yield connection


def fill(connection: Connection, count: int, size: int, days_old: float = 0, *, resolved: int = 0) -> None:
    """Put letters of one size into the table; the last so many of them are resolved."""
    connection.execute(
        "insert into dead_letter (received_at, origin, code, message, raw, raw_size, resolved_at) "
        "select %s, 'test', 'x', 'm', substring(seed from 1 for %s), %s, case when n > %s then now() end "
        "from generate_series(1, %s) as n, "
        "lateral (select decode(string_agg(md5(random()::text || n || i), ''), 'hex') as seed "
        "from generate_series(1, %s / 16 + 1) as i) as made",
        (datetime.now(UTC) - timedelta(days=days_old), size, size, count - resolved, count, size),
    )


def prune(
    connection: Connection, *, days: int = 90, most: int = 1024**3, bite: int = 1000
) -> tuple[int, int]:
    """Prune a bite; give how many letters went, and their bytes."""
    values = {"max_age_days": days, "max_total_bytes": most, "bite": bite}
    row = connection.execute(PRUNE, values).fetchone()
    assert row is not None
    assert row[2] in {True, False}
    return row[0], row[1]


def ids(connection: Connection) -> list[int]:
    """Give the letters that are there, oldest first."""
    found = connection.execute("select dead_letter_id from dead_letter order by 1").fetchall()
    return [row[0] for row in found]


def test_what_the_service_may_do(service: Connection) -> None:
    """It adds letters and marks them; what was refused, and why, stays as it was."""
    service.execute(
        "insert into dead_letter (origin, code, message, raw, raw_size) values ('o', 'c', 'm', '', 0)"
    )
    service.execute(
        "update dead_letter set replays = 1, replayed_at = now(), replay_error = 'e', resolved_at = now()"
    )
    service.execute("vacuum dead_letter")
    for statement in (
        "update dead_letter set raw = ''",
        "update dead_letter set received_at = now()",
        "update dead_letter set code = 'x'",
        "delete from dead_letter",
        "truncate dead_letter",
        "alter table dead_letter drop column raw",
        "drop function prune_dead_letters(bigint, bigint, bigint)",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            service.execute(statement.encode())


def test_nobody_else_may_prune(postgres: Postgres, database: str) -> None:
    """The function that deletes is for the service alone."""
    with (
        psycopg.connect(postgres.url("fleetwatt_bi", database)) as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute("select * from public.prune_dead_letters(1, 1, 1)")


def test_what_is_too_old_goes_first(service: Connection, owned: Connection) -> None:
    """By age, the oldest first, in bites; nothing younger goes with it."""
    fill(owned, 5, 100, days_old=91)
    fill(owned, 3, 100, days_old=95)
    fill(owned, 2, 100, days_old=89)
    assert prune(service, bite=3) == (3, 3 * 600)
    assert ids(owned) == [1, 2, 3, 4, 5, 9, 10]
    assert prune(service) == (5, 5 * 600)
    assert prune(service) == (0, 0)
    assert ids(owned) == [9, 10]


def test_what_is_too_much_goes_resolved_ones_first(service: Connection, owned: Connection) -> None:
    """By size: resolved letters, then those that wait, the oldest first, and no more than has to go."""
    size = 100_000
    fill(owned, 10, size)
    fill(owned, 10, size, resolved=4)
    keep = (size + 500) * 18
    assert prune(service, most=keep) == (2, 2 * (size + 500))
    assert ids(owned) == [*range(1, 17), 19, 20]
    assert prune(service, most=keep) == (0, 0)
    # A byte less is a letter more.
    assert prune(service, most=keep - 1)[0] == 1
    assert prune(service, most=(size + 500) * 11)[0] == 6
    assert ids(owned) == list(range(6, 17))


def test_small_letters_count_their_rows(service: Connection, owned: Connection) -> None:
    """A flood of tiny letters is bounded as well: each counts for its row and its index entries."""
    fill(owned, 5000, 10)
    gone = 0
    while bite := prune(service, most=2 * MIB, bite=300)[0]:
        assert bite <= 300
        gone += bite
    assert len(ids(owned)) == 5000 - gone == 2 * MIB // 510
    disk = owned.execute(query("dead_letter_disk_bytes")).fetchone()
    assert disk is not None
    assert disk[0] < 5000 * 510 + MIB


def test_more_is_told(service: Connection, owned: Connection) -> None:
    """A bite tells whether another one has to follow, by age, by size and by its own bound in bytes."""

    def bite(days: int, most: int, size: int) -> tuple[int, bool]:
        values = {"max_age_days": days, "max_total_bytes": most, "bite": size}
        row = service.execute(PRUNE, values).fetchone()
        assert row is not None
        return row[0], row[2]

    fill(owned, 4, 100, days_old=91)
    fill(owned, 30, 100_000, resolved=5)
    assert bite(90, 10 * MIB, 3) == (3, True)
    # The last that is too old, two that are resolved.
    assert bite(90, 100_500 * 20, 3) == (3, True)
    assert len(ids(owned)) == 28
    assert bite(90, 100_500 * 20, 6) == (6, True)
    assert bite(90, 100_500 * 20, 6) == (2, False)
    assert ids(owned) == list(range(10, 30))
    assert bite(90, 100_500 * 20, 6) == (0, False)


def test_a_wrong_wish_empties_nothing(service: Connection, owned: Connection) -> None:
    """Less than a day, or less than a mebibyte, is not followed."""
    fill(owned, 3, 1000, days_old=0.9)
    assert prune(service, days=0, most=0) == (0, 0)
    assert prune(service, days=-5, most=-5) == (0, 0)
    assert len(ids(owned)) == 3


def test_one_at_a_time(service: Connection, owned: Connection) -> None:
    """While another process prunes there is nothing to do; its lock goes with its transaction."""
    fill(owned, 3, 100, days_old=91)
    with owned.transaction():
        owned.execute("select pg_advisory_xact_lock(26222, 1)")
        assert prune(service) == (0, 0)
    assert prune(service)[0] == 3


def test_pruning_waits_for_nobody(service: Connection, owned: Connection) -> None:
    """Letters come in while others are pruned: nothing but the rows that go is locked."""
    fill(owned, 3, 100, days_old=91)
    with owned.transaction():
        owned.execute("select * from prune_dead_letters(90, 1000000000, 100)")
        service.execute("set lock_timeout = '2s'")
        fill(service, 1, 100)
        assert service.execute(query("find_dead_letters"), _filters()).fetchall() != []
    assert len(ids(owned)) == 1


def test_two_marks_do_not_deadlock(service: Connection, owned: Connection) -> None:
    """Rows are locked in the order of their ids, however they are named; what is resolved stays so."""
    fill(owned, 2, 100)
    service.execute(query("mark_dead_letters"), {"letter_ids": [2, 1], "replay_errors": ["late", None]})
    service.execute(query("mark_dead_letters"), {"letter_ids": [1, 2], "replay_errors": ["late", "later"]})
    found = owned.execute(
        "select resolved_at is not null, replays, replay_error from dead_letter order by dead_letter_id"
    ).fetchall()
    assert found == [(True, 2, None), (False, 2, "later")]
    for name in ("mark_dead_letters", "dismiss_dead_letters"):
        executed = plan(owned, query(name).rstrip(";"), _ids([2, 1]))
        assert executed.index("LockRows") < max(executed.find("Sort"), executed.find("Index Scan")), executed


def _ids(wanted: list[int]) -> dict[str, Any]:
    return {"letter_ids": wanted, "replay_errors": [None] * len(wanted)}


def _filters(**changes: Any) -> dict[str, Any]:
    names = (
        "after_letter",
        "is_resolved",
        "letter_kind",
        "letter_device",
        "letter_code",
        "letter_origin",
        "window_from",
        "window_to",
    )
    return {**dict.fromkeys(names), "page_size": 100, **changes}


def test_plans_of_many_letters(owned: Connection) -> None:
    """Of 100,000 letters, nearly all of them resolved, a page is read by index, whatever is asked for."""
    owned.execute(
        "insert into dead_letter "
        "(received_at, origin, kind, device_id, code, message, raw, raw_size, resolved_at) "
        "select now() - n * interval '1 minute', 'mqtt:telemetry/meter/m', 'meter', 'm-' || n % 2000, "
        "case when n % 1000 = 0 then 'too_deep' else 'conflict' end, 'message', "
        "convert_to(repeat('x', 200), 'utf8'), 200, case when n % 500 > 0 then now() end "
        "from generate_series(100000, 1, -1) as n"
    )
    owned.execute("vacuum analyze dead_letter")
    asked: list[tuple[Any, dict[str, Any], str]] = [
        (query("find_dead_letters"), _filters(), "dead_letter_pkey"),
        (query("find_dead_letters"), _filters(after_letter=50_000), "dead_letter_pkey"),
        (query("find_dead_letters"), _filters(is_resolved=False), "dead_letter_waiting"),
        (query("find_dead_letters"), _filters(letter_device="m-77"), "dead_letter_device"),
        (query("find_dead_letters"), _filters(letter_code="too_deep"), "dead_letter_code"),
        (query("dead_letters_to_replay"), _filters(), "dead_letter_waiting"),
        (query("get_dead_letters"), _ids([5, 7]), "dead_letter_pkey"),
        (query("dead_letter_sizes"), _ids([5, 7]), "dead_letter_pkey"),
        (query("dismiss_dead_letters"), _ids([5, 7]), "dead_letter_"),
        (query("count_waiting_dead_letters"), {}, "dead_letter_waiting"),
        (RESOLVED, {}, "dead_letter_resolved"),
    ]
    for text, values, index in asked:
        executed = plan(owned, text.rstrip(";"), values)
        assert f"using {index}" in executed or f"on {index}" in executed, executed
        assert "Seq Scan on dead_letter" not in executed, executed
    window = {
        "window_from": datetime.now(UTC) - timedelta(hours=2),
        "window_to": datetime.now(UTC) - timedelta(hours=1),
    }
    executed = plan(owned, query("find_dead_letters").rstrip(";"), _filters(**window))
    assert "Seq Scan on dead_letter" not in executed, executed

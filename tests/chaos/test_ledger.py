"""The count itself: what is missing, changed or too much is found."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from tests.chaos import poison
from tests.chaos.ledger import Ledger, Trip

pytestmark = pytest.mark.anyio


async def _count(owner: AsyncConnection[Any], ledger: Ledger, **how: Any) -> list[int]:
    """Give how many readings are lost, letters are lost and wrong, sessions are wrong, and not kept."""
    account = await ledger.account(owner, **how)
    return [
        len(account.lost),
        len(account.letters_lost),
        len(account.letters_wrong),
        len(account.sessions_wrong),
        account.not_kept,
    ]


async def _letter(owner: AsyncConnection[Any], raw: bytes, code: str) -> None:
    await owner.execute(
        "insert into dead_letter (origin, code, message, raw, raw_size) values ('http:/', %s, 'no', %s, 1)",
        [code, raw],
    )


async def test_what_is_missing_is_found(owner: AsyncConnection[Any]) -> None:
    """A reading, a dead letter and a session that were acknowledged are missed, unless excused."""
    owner.row_factory = tuple_row
    ledger = Ledger("r")
    key, _ = ledger.reading("q-0", "meter")
    ledger.acknowledge([key])
    bad = poison.reading(ledger, "q-0", "meter", Random(1))
    ledger.refused.add(bad)
    ledger.trips["r-q-0-0"] = Trip(meter_id="r-q-0-c", started_at=1_000_000, start_taken=True)
    assert await _count(owner, ledger) == [1, 1, 0, 1, 0]
    assert await _count(owner, ledger, excused="q-") == [0, 0, 0, 0, 0]
    assert not (await ledger.is_there(owner))[0]
    await _letter(owner, bad, ledger.bad[bad])
    assert await _count(owner, ledger) == [1, 0, 0, 1, 0]
    await _letter(owner, bad, "another_code")
    await _letter(owner, b"r-q-0 never sent", "malformed_json")
    assert await _count(owner, ledger) == [1, 0, 2, 1, 0]


async def test_what_http_refused_is_owed_a_letter_only_while_the_database_is_there(
    owner: AsyncConnection[Any],
) -> None:
    """A refusal told while the database was away is counted apart; at another time its letter is missed."""
    owner.row_factory = tuple_row
    ledger = Ledger("r")
    ledger.told[poison.unreadable(ledger, "h0-0", Random(1))] = 5.0
    assert await _count(owner, ledger, away=(4.0, 6.0)) == [0, 0, 0, 0, 1]
    assert await _count(owner, ledger, away=(6.0, 7.0)) == [0, 1, 0, 0, 0]


async def test_a_session_counts_as_far_as_it_was_taken(owner: AsyncConnection[Any]) -> None:
    """Its end may be missing until it is acknowledged; what is stored may not differ."""
    owner.row_factory = tuple_row
    ledger = Ledger("r")
    trip = Trip(meter_id="m", started_at=1_000_000, ended_at=2_000_000, start_taken=True)
    ledger.trips["r-q-0-0"] = trip
    await owner.execute(
        "insert into charging_session (session_id, vehicle_id, meter_id, during) "
        "values ('r-q-0-0', 'v', 'm', tstzrange(to_timestamp(1), null))"
    )
    assert await _count(owner, ledger) == [0, 0, 0, 0, 0]
    trip.end_taken = True
    assert await _count(owner, ledger) == [0, 0, 0, 1, 0]
    await owner.execute("update charging_session set during = tstzrange(to_timestamp(1), to_timestamp(2))")
    assert await _count(owner, ledger) == [0, 0, 0, 0, 0]
    trip.meter_id = "other"
    assert await _count(owner, ledger) == [0, 0, 0, 1, 0]

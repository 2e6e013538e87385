"""Waiting messages about sessions are looked through, and given up after a while: each meter by itself."""

from __future__ import annotations

import time
from typing import Final

import msgspec
import psycopg
import pytest

from service import db
from service.sessions.expiry import expire_messages
from service.sessions.messages import SessionMessages
from service.settings import Settings
from tests.service import test_sessions_messages
from tests.service.test_sessions_messages import LETTERS, SESSIONS, WAITING, end, spans, start, take
from tests.support.strategies import Owner, at, rfc3339, rows

pytestmark = pytest.mark.anyio

messages = test_sessions_messages.messages
_AGE: Final = "update session_message set received_at = received_at - interval '2 days'"
_MANY: Final = (
    "insert into session_message (meter_id, ended_at, received_at, origin, raw, raw_size) "
    "select 'm-' || m, now() + n * interval '1 minute', now() - interval '2 days', 'test', '{}', 2 "
    "from generate_series(1, %s) as m, generate_series(1, %s) as n"
)


async def test_an_end_waits_for_its_start_and_then_gives_up(
    settings: Settings, messages: SessionMessages, owner: Owner
) -> None:
    """An end without a session and a start on a meter that is taken wait for a while, then are refused."""
    await take(messages, start(0, "v-1", endedAt=rfc3339(at(60))))
    await take(messages, start(30, "v-2"), end(90), end(120, sessionId="s-9"))
    assert len(await rows(owner, WAITING)) == 3
    await owner.execute("update session_message set received_at = received_at - interval '1 hour'")

    async with db.read_pool(settings) as pool:
        for wait_s, left in ((7200, 3), (1800, 0)):
            patient = SessionMessages(msgspec.structs.replace(settings, session_wait_s=wait_s), pool)
            assert await patient.expire() == 3 - left
            assert len(await rows(owner, WAITING)) == left
    assert await rows(owner, WAITING) == []
    letters = await rows(owner, LETTERS)
    assert [(row["code"], row["field"]) for row in letters] == [
        ("session_overlap", "meterId"),
        ("no_open_session", "endedAt"),
        ("no_open_session", "endedAt"),
    ]
    assert bytes(letters[1]["raw"]) == msgspec.json.encode(end(90))
    assert await spans(owner) == [("v-1", 0, 60)]


async def test_what_waited_too_long_is_given_up_before_anything_is_tried(
    settings: Settings, messages: SessionMessages, owner: Owner
) -> None:
    """An old message is a dead letter even if it fitted by now; a younger one that fits then is used."""
    await take(messages, start(0, "v-1"), start(30, "v-2"))
    await owner.execute(_AGE)
    await take(messages, start(40, "v-3"))
    await owner.execute("update charging_session set during = tstzrange(lower(during), %s)", (at(20),))
    assert await expire_messages(settings) == 1
    assert await spans(owner) == [("v-1", 0, 20), ("v-3", 40, None)]
    assert [row["code"] for row in await rows(owner, LETTERS)] == ["session_overlap"]


async def test_old_ends_are_forgotten(settings: Settings, messages: SessionMessages, owner: Owner) -> None:
    """An end that was matched by time is no guess any more once it is old, and its row goes."""
    await take(messages, start(0), end(30))
    assert await expire_messages(settings) == 0
    assert len(await rows(owner, "select * from session_message")) == 1
    await owner.execute(_AGE)
    assert await expire_messages(settings) == 0
    assert await rows(owner, "select * from session_message") == []
    await take(messages, end(20))
    assert await spans(owner) == [("v-1", 0, 30)]


async def test_a_meter_that_fails_stops_no_other(settings: Settings, owner: Owner) -> None:
    """Each meter is a transaction of its own, of which one may fail, or be held up too long."""
    await owner.execute(
        "create function fail() returns trigger language plpgsql as "
        "$$ begin if new.device_id = 'm-1' then raise 'no'; end if; "
        "if new.device_id = 'm-2' then perform pg_sleep(60); end if; return new; end $$"
    )
    await owner.execute(
        "create trigger fail before insert on dead_letter for each row execute function fail()"
    )
    await owner.execute(_MANY, (5, 2))
    hasty = msgspec.structs.replace(settings, statement_timeout_s=1.0)
    assert await expire_messages(hasty) == 6
    assert {row["meter_id"] for row in await rows(owner, WAITING)} == {"m-1", "m-2"}
    found = await rows(owner, "select distinct device_id, xmin::text from dead_letter")
    assert len({row["xmin"] for row in found}) == len(found) == 3
    await owner.execute("drop trigger fail on dead_letter")
    assert await expire_messages(hasty) == 4


async def test_a_busy_meter_comes_next_time(settings: Settings, owner: Owner) -> None:
    """A meter whose messages are being handled is passed over; nobody waits for it."""
    await owner.execute(_MANY, (3, 1))
    async with owner.transaction():
        await owner.execute("select pg_advisory_xact_lock(hashtextextended('meter m-2', 0))")
        assert await expire_messages(settings) == 2
    assert [row["meter_id"] for row in await rows(owner, WAITING)] == ["m-2"]
    assert await expire_messages(settings) == 1


async def test_one_process_at_a_time(settings: Settings, owner: Owner) -> None:
    """While another process is at it there is nothing to do; afterwards the lock is free again."""
    await owner.execute(_MANY, (3, 1))
    await owner.execute("select pg_advisory_lock(26221, 1)")
    assert await expire_messages(settings) == 0
    assert len(await rows(owner, WAITING)) == 3
    await owner.execute("select pg_advisory_unlock(26221, 1)")
    for given_up in (3, 0):
        assert await expire_messages(settings) == given_up
    assert (await rows(owner, "select pg_try_advisory_lock(26221, 1) as free"))[0]["free"]


async def test_many_meters_and_many_messages(settings: Settings, owner: Owner) -> None:
    """More meters than are asked for at once are all looked through; a flood on one is taken in portions."""
    await owner.execute(_MANY, (1100, 1))
    await owner.execute(_MANY.replace("'m-' || m", "'flood'"), (1, 1500))
    assert await expire_messages(settings) == 2100
    assert len(await rows(owner, WAITING)) == 500
    assert await expire_messages(settings) == 500
    assert await rows(owner, WAITING) == []
    assert await rows(owner, SESSIONS) == []


async def test_the_database_is_away(settings: Settings, owner: Owner) -> None:
    """A connection that is cut off ends the turn with an error, rather than one error a meter."""
    await owner.execute(
        "create function cut() returns trigger language plpgsql as "
        "$$ begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$"
    )
    await owner.execute("create trigger cut before insert on dead_letter for each row execute function cut()")
    await owner.execute(_MANY, (1000, 1))
    begun = time.monotonic()
    with pytest.raises(psycopg.OperationalError):
        await expire_messages(settings)
    assert time.monotonic() - begun < 30
    assert len(await rows(owner, WAITING)) == 1000

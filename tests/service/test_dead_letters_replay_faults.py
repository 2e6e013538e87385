"""Replays that meet each other, crash, or find the database away: nothing is lost, nothing stored twice."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dead_letters.letter import Filters
from service.dead_letters.replay import Replay
from service.dead_letters.store import Letters
from service.errors import DatabaseUnavailableError
from service.ingest.decode import decode
from service.ingest.pipeline import Pipeline
from service.readings import Reading, TimeRule
from service.settings import Settings
from tests.support.letters import keep, marks, replaying, tables
from tests.support.servers import Postgres
from tests.support.strategies import (
    Owner,
    against_a_database,
    altered,
    as_json,
    at,
    encode,
    meter,
    problem,
    rfc3339,
    rows,
    serving,
    vehicle,
)

pytestmark = pytest.mark.anyio

EVERYTHING = Filters()


async def test_two_replays_at_once(settings: Settings, owner: Owner) -> None:
    """Two processes that replay the same letters store each reading once and mark each letter as resolved."""
    for minute in range(200):
        await keep(owner, altered(meter(f"m-{minute % 7}", minute)))
    async with replaying(settings) as (one, _), replaying(settings) as (two, _):
        reports = await asyncio.gather(
            *(replay.matching(EVERYTHING, 1000) for replay in (one, two, one, two))
        )
    assert sum(report.stored for report in reports) == 200
    assert all(report.stored + report.duplicates + report.skipped == 200 for report in reports)
    assert len((await tables(owner))["meter"]) == 200
    marked = await marks(owner)
    assert {mark[0] for mark in marked.values()} == {True}
    assert len(marked) == 200


class _Stuck(Letters):
    """Letters of a process that dies before it marks them."""

    async def mark(self, errors: dict[int, str | None]) -> None:
        """Never come to an end."""
        assert errors
        await asyncio.Event().wait()


async def test_a_crash_between_store_and_mark(settings: Settings, owner: Owner) -> None:
    """What was stored but not marked is found stored by the next replay."""
    number = await keep(owner, altered(meter()))
    async with replaying(settings) as (replay, letters):
        crashing = Replay(_Stuck(letters.pool), replay._take)  # noqa: SLF001 - the same, but for the crash
        task = asyncio.create_task(crashing.matching(EVERYTHING, 10))
        while not (await tables(owner))["meter"]:
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await marks(owner))[number] == (False, 0, None)
    before = await tables(owner)
    async with replaying(settings) as (replay, _):
        report = await replay.matching(EVERYTHING, 10)
    assert (report.stored, report.duplicates, report.resolved) == (0, 1, 1)
    assert await tables(owner) == before
    assert (await marks(owner))[number] == (True, 1, None)


async def test_a_database_that_cannot_be_written(
    settings: Settings, owner: Owner, postgres: Postgres, database: str
) -> None:
    """While nothing can be stored, nothing is marked; afterwards everything is, once."""
    ids = [await keep(owner, altered(meter(minute=minute))) for minute in range(3)]
    async with serving(settings, http_commit_timeout_s=1.0, read_pool_max=1) as client:
        # Connections keep what they began with: this one is there before, that of the writer comes after.
        assert (await client.get("/v1/dead-letters")).status_code == 200
        with postgres.admin() as admin:
            read_only = f"alter database {database} set default_transaction_read_only = "
            admin.execute((read_only + "on").encode())
            problem(await client.post("/v1/dead-letters/replay", json={}), 503, "unavailable")
            assert set((await marks(owner)).values()) == {(False, 0, None)}
            admin.execute((read_only + "off").encode())
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = %s and application_name = 'fleetwatt write'",
                (database,),
            )
        for _ in range(100):
            response = await client.post("/v1/dead-letters/replay", json={"ids": ids})
            if response.status_code == 200:
                break
            problem(response, 503, "unavailable")
            await asyncio.sleep(0.1)
        assert response.json()["resolved"] == 3
    assert len((await tables(owner))["meter"]) == 3


async def test_a_part_that_fails_marks_nothing_of_it(settings: Settings, owner: Owner) -> None:
    """One letter that cannot be tried for now leaves those tried with it to the next replay."""
    await keep(owner, altered(meter()))
    away = await keep(owner, altered(meter(minute=1)))
    async with replaying(settings) as (replay, letters):

        async def take(letter: Any) -> Any:
            if letter.dead_letter_id == away:
                raise DatabaseUnavailableError("away")
            return await replay._take(letter)  # noqa: SLF001 - as it is, but for one letter

        with pytest.raises(DatabaseUnavailableError):
            await Replay(letters, take).matching(EVERYTHING, 10)
        assert set((await marks(owner)).values()) == {(False, 0, None)}
        report = await replay.matching(EVERYTHING, 10)
    assert (report.stored, report.duplicates, report.resolved) == (1, 1, 2)


async def test_connections_are_given_back(settings: Settings, owner: Owner) -> None:
    """A refused message about a session is rolled back, and the connection that it was tried on is whole."""
    number = await keep(owner, {"sessionId": "s", "endedAt": rfc3339(at(0))}, "mqtt:sessions/m-1")
    await owner.execute(
        "insert into charging_session values ('s', 'v', 'm-2', tstzrange(%s, null))", (at(-60),)
    )
    async with replaying(settings, read_pool_max=1) as (replay, letters):
        for _ in range(3):
            report = await replay.those([number])
            assert [result.code for result in report.results] == ["id_mismatch"]
        stats = letters.pool.get_stats()
    assert stats.get("connections_lost", 0) == 0
    assert len(await rows(owner, "select * from dead_letter")) == 1
    assert await rows(owner, "select * from session_message") == []


_EXAMPLE = itertools.count()
# Of one device and minute there is one reading, so no order makes a conflict.
_KEYS = st.tuples(st.sampled_from(["meter", "vehicle"]), st.integers(0, 2), st.integers(0, 5))


@st.composite
def _mixes(draw: st.DrawFn) -> tuple[list[list[tuple[Any, str]]], list[list[int]]]:
    """Give payloads, each of some readings and what is spoilt in them, and in which turns letters come."""
    spoilt = st.sampled_from(["good", "good", "late", "late", "bad"])
    payloads = draw(st.lists(st.lists(st.tuples(_KEYS, spoilt), min_size=1, max_size=4), max_size=6))
    turns = draw(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=5), max_size=6))
    return payloads, turns


def _reading(key: tuple[str, int, int], prefix: str) -> Reading:
    kind, device, minute = key
    value = 0.1 * minute + device
    name = f"{prefix}-{device}"
    return meter(name, minute, value) if kind == "meter" else vehicle(name, minute, value)


@against_a_database
@given(_mixes())
async def test_any_replays_give_the_tables_that_good_payloads_give(
    settings: Settings, owner: Owner, mix: tuple[list[list[tuple[Any, str]]], list[list[int]]]
) -> None:
    """Whatever was refused at first and in whatever order it is tried again, the tables end up the same."""
    payloads, turns = mix
    prefix = f"x{next(_EXAMPLE)}"
    for table in ("meter_reading", "vehicle_reading", "meter_state", "vehicle_state", "dead_letter"):
        await owner.execute(f"truncate {table}".encode())
    strict = TimeRule(behind_s=3600.0, now=at(3).timestamp)
    good: dict[tuple[str, Any], Reading] = {}
    hopeless = 0
    async with Pipeline(settings, prefix) as pipeline:
        for payload in payloads:
            parts = []
            for key, fate in payload:
                reading = _reading(key, prefix)
                part = as_json(reading)
                if fate == "late":
                    # Too old by the rules of the first day, and fine by those of the second.
                    part["timestamp"] = rfc3339(reading.recorded_at - timedelta(days=2))
                if fate == "bad":
                    part["timestamp"] = "yesterday"
                    hopeless += 1
                else:
                    stored = msgspec.convert(part, type(reading))
                    good[stored.device_id + key[0], stored.recorded_at] = stored
                parts.append(part)
            await pipeline.submit(decode(msgspec.json.encode(parts), strict), "http:/v1/telemetry")
    letters = sorted(await marks(owner))
    async with replaying(settings) as (replay, _):
        for turn in turns:
            if chosen := [letters[place % len(letters)] for place in turn if letters]:
                await replay.those(chosen)
        await replay.matching(EVERYTHING, 100)
    marked = await marks(owner)
    assert sorted(marked) == letters
    assert [mark[0] for mark in marked.values()].count(False) == hopeless
    after = await tables(owner)
    for table in ("meter_reading", "vehicle_reading", "meter_state", "vehicle_state"):
        await owner.execute(f"truncate {table}".encode())
    async with Pipeline(settings, prefix) as pipeline:
        if good:
            await pipeline.submit(decode(encode(*good.values()), TimeRule()), "test")
    assert await tables(owner) == after

"""Replays: each letter goes the way that it came by, under today's rules, and nothing is stored twice."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dead_letters import again
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
    Api,
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
TOPIC = "mqtt:telemetry/meter/m-1"


async def test_what_an_origin_vouches_for(settings: Settings, owner: Owner) -> None:
    """A topic names the device, a route the kind; a line of NDJSON names both itself."""
    nameless = altered(meter(minute=1), meterId=...)
    ids = [
        await keep(owner, nameless, TOPIC),
        await keep(owner, {"readings": [as_json(meter(minute=2))]}, "http:/v1/ingestion/meter/batch"),
        await keep(owner, altered(vehicle()), "http:/v1/ingest/vehicle"),
        await keep(owner, b" " + encode(meter(minute=3))[1:-1], "import:a.ndjson:1-9"),
        await keep(owner, [altered(meter(minute=4)), altered(vehicle(minute=4))]),
        # Not what the place where it came from stands for.
        await keep(owner, altered(vehicle(minute=5)), "http:/v1/ingest/meter"),
        await keep(owner, altered(meter("m-2")), TOPIC),
        await keep(owner, nameless, "http:/v1/telemetry"),
        await keep(owner, altered(meter(minute=6)), "mqtt:telemetry/charger/m-1", code="unknown_topic"),
    ]
    async with replaying(settings) as (replay, _):
        report = await replay.matching(EVERYTHING, 100)
    assert [result.result for result in report.results] == ["stored"] * 5 + ["refused"] * 4
    codes = [result.code for result in report.results[5:]]
    assert codes == ["missing", "id_mismatch", "missing", "unknown_topic"]
    assert (report.stored, report.refused, report.resolved) == (6, 4, 5)
    marked = await marks(owner)
    assert [marked[number][:2] for number in ids] == [(True, 1)] * 5 + [(False, 1)] * 4
    stored = await tables(owner)
    assert [row[:2] for row in stored["meter"]] == [("m-1", at(minute)) for minute in (1, 2, 3, 4)]
    assert [row[:2] for row in stored["vehicle"]] == [("v-1", at(0)), ("v-1", at(4))]
    assert stored["meter_state"][0][:2] == ("m-1", at(4))


async def test_what_cannot_be_tried(settings: Settings, owner: Owner) -> None:
    """What was cut off, a line of CSV, what came from nowhere known: skipped with the reason, unmarked."""
    await keep(owner, altered(meter()), raw_size=1_000_000)
    await keep(owner, b"31/01/2026;12:00;0,5", "import:meter.csv:1-9", code="out_of_range")
    await keep(owner, altered(meter()), "somewhere")
    async with replaying(settings) as (replay, _):
        report = await replay.matching(EVERYTHING, 100)
    assert (report.replayed, report.skipped, report.stored) == (0, 3, 0)
    words = [str(result.message) for result in report.results]
    assert ["bytes were kept" in words[0], "CSV" in words[1], "nothing is known" in words[2]] == [True] * 3
    assert set((await marks(owner)).values()) == {(False, 0, None)}
    assert (await tables(owner))["meter"] == []


async def test_a_payload_that_was_refused_whole(settings: Settings, owner: Owner) -> None:
    """Its good readings are stored; it is resolved only once all of them are."""
    part = [altered(meter()), altered(meter(minute=1), voltage=None), altered(vehicle()), {}]
    number = await keep(owner, part, code="too_many_readings")
    async with replaying(settings) as (replay, _):
        first = await replay.those([number])
        again = await replay.those([number])
    assert (first.stored, first.duplicates, first.refused, first.resolved) == (2, 0, 2, 0)
    assert (again.stored, again.duplicates, again.refused, again.resolved) == (0, 2, 2, 0)
    resolved, replays, error = (await marks(owner))[number]
    assert (resolved, replays) == (False, 2)
    assert str(error).startswith('wrong_type: "voltage" must be')
    assert str(error).endswith("(and 1 more of its readings)")
    assert len(await rows(owner, "select * from dead_letter")) == 1


async def test_after_a_fix_of_the_settings(settings: Settings, owner: Owner) -> None:
    """Payloads refused by a limit, arrays and lines alike, are stored once the limit is raised."""
    lines = b"\n".join(msgspec.json.encode(meter("m-2", minute)) for minute in range(5))
    async with serving(settings, http_max_readings=4) as client:
        body = encode(*(meter("m-1", minute) for minute in range(5)))
        problem(await client.post("/v1/telemetry", content=body), 413, "too_many_readings")
        headers = {"Content-Type": "application/x-ndjson"}
        response = await client.post("/v1/telemetry", content=lines, headers=headers)
        problem(response, 413, "too_many_readings")
        report = (await client.post("/v1/dead-letters/replay", json={})).json()
        assert (report["replayed"], report["refused"], report["stored"]) == (2, 2, 0)
        # A device whose clock was ahead: by now it may not be.
        early = altered(meter("m-3"), timestamp=rfc3339(datetime.now(UTC) + timedelta(minutes=10)))
        problem(await client.post("/v1/telemetry", json=early), 400, "future_timestamp")
    async with serving(settings, clock_ahead_s=3600.0) as client:
        report = (await client.post("/v1/dead-letters/replay", json={"origin": "http:"})).json()
        assert (report["replayed"], report["resolved"], report["stored"]) == (3, 3, 11)
        assert (await client.get("/v1/dead-letters")).json()["deadLetters"] == []
    assert len((await tables(owner))["meter"]) == 11


async def test_a_conflict_stays_a_conflict(api: Api, owner: Owner) -> None:
    """The first reading stays, however often the other one is tried; no further letter comes of it."""
    assert (await api.post("/v1/telemetry", json=as_json(meter(kwh=0.1)))).status_code == 201
    problem(await api.post("/v1/telemetry", json=as_json(meter(kwh=0.2))), 400, "conflict")
    before = await tables(owner)
    for replays in (1, 2):
        report = (await api.post("/v1/dead-letters/replay", json={"code": "conflict"})).json()
        assert (report["refused"], report["resolved"]) == (1, 0)
        [(resolved, count, error)] = (await marks(owner)).values()
        assert (resolved, count) == (False, replays)
        assert str(error).startswith("conflict: other values are stored")
    assert await tables(owner) == before
    # Once the stored one is gone, it is one no longer.
    await owner.execute("delete from meter_reading")
    assert (await api.post("/v1/dead-letters/replay", json={"code": "conflict"})).json()["resolved"] == 1
    assert [row[2] for row in (await tables(owner))["meter"]] == [0.2]


async def test_what_the_database_refuses(settings: Settings, owner: Owner) -> None:
    """A reading that only the database refuses sinks no other one, and leaves no further letter."""
    await owner.execute("alter table meter_reading add check (voltage <> 231)")
    bad = await keep(owner, altered(meter(), voltage=231))
    good = await keep(owner, altered(meter(minute=1)))
    async with replaying(settings) as (replay, _):
        report = await replay.matching(EVERYTHING, 10)
    assert (report.stored, report.refused) == (1, 1)
    marked = await marks(owner)
    assert (marked[good][0], marked[bad][0]) == (True, False)
    assert "database_refused" in str(marked[bad][2])
    assert len(marked) == 2


async def test_what_a_key_may_not_send(settings: Settings, owner: Owner) -> None:
    """Readings of foreign devices are not swept in with the others: by code or by id only."""
    foreign = [
        await keep(owner, altered(meter("m-9", minute)), code="foreign_device", device_id="m-9")
        for minute in (0, 1)
    ]
    async with replaying(settings) as (replay, _):
        assert (await replay.matching(EVERYTHING, 10)).replayed == 0
        assert (await replay.matching(Filters(letter_device="m-9"), 10)).replayed == 0
        assert (await replay.those(foreign[:1])).stored == 1
        assert (await replay.matching(Filters(letter_code="foreign_device"), 10)).stored == 1


async def test_what_came_by_a_bound_key(settings: Settings, owner: Owner) -> None:
    """What such a key had refused for another reason is no way around the devices that it is bound to."""
    await owner.execute(
        "insert into api_key (key_id, name, scopes, secret_sha256, meter_ids, revoked_at) "
        "values ('abcdefghij01', 'k', '{ingest}', sha256(''), '{m-1}', now())"
    )
    origin = "http:/v1/telemetry#abcdefghij01"
    mixed = await keep(owner, [as_json(meter()), as_json(meter("m-2")), as_json(vehicle())], origin)
    asked = await keep(owner, as_json(meter("m-3")), origin, code="foreign_device")
    lost = await keep(owner, as_json(meter("m-4")), "http:/v1/telemetry#abcdefghij99")
    async with replaying(settings) as (replay, _):
        report = await replay.matching(EVERYTHING, 10)
        assert (report.stored, report.refused, report.skipped) == (1, 2, 1)
        assert [(result.id, result.code) for result in report.results] == [
            (mixed, "foreign_device"),
            (lost, None),
        ]
        assert [row[0] for row in (await tables(owner))["meter"]] == ["m-1"]
        assert (await replay.those([asked])).stored == 1


async def test_keys_of_many_letters_are_looked_up_once(
    settings: Settings, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Letters that are tried together ask for their keys together."""
    await owner.execute(
        "insert into api_key (key_id, name, scopes, secret_sha256, meter_ids) "
        "select 'abcdefghij0' || n, 'k', '{ingest}', sha256(''), array['m-' || n] "
        "from generate_series(1, 2) as n"
    )
    for minute in range(60):
        device = minute % 2 + 1
        origin = f"http:/v1/telemetry#abcdefghij0{device}"
        await keep(owner, as_json(meter(f"m-{device}", minute)), origin)
    asked: list[list[str]] = []
    fetch_all = again.fetch_all  # type: ignore[attr-defined]

    async def counting(*arguments: Any) -> Any:
        asked.append(sorted(arguments[2]["key_ids"]))
        return await fetch_all(*arguments)

    monkeypatch.setattr(again, "fetch_all", counting)
    async with replaying(settings) as (replay, _):
        assert (await replay.matching(EVERYTHING, 100)).stored == 60
    assert asked == [["abcdefghij01", "abcdefghij02"]]


async def test_messages_about_sessions(settings: Settings, owner: Owner) -> None:
    """They go back to where messages about sessions go; refused again they leave no further letter."""
    topic = "mqtt:sessions/m-1"
    start = {"sessionId": "s-1", "vehicleId": "v-1", "startedAt": rfc3339(at(0))}
    ids = [
        await keep(owner, {"endedAt": rfc3339(at(60))}, topic, code="no_open_session"),
        await keep(owner, start, topic),
        await keep(owner, start | {"endedAt": rfc3339(at(60))}, topic),
        await keep(owner, start | {"vehicleId": "v-2"}, topic, code="session_exists"),
        await keep(owner, {"startedAt": rfc3339(at(0))}, topic, code="missing"),
        await keep(owner, start, "mqtt:sessions/m 1", code="unknown_topic"),
    ]
    async with replaying(settings) as (replay, _):
        report = await replay.matching(EVERYTHING, 100)
    results = [(result.result, result.code) for result in report.results]
    assert results == [
        ("waits", None),
        ("stored", None),
        ("duplicate", None),
        ("refused", "session_exists"),
        ("refused", "missing"),
        ("refused", "unknown_topic"),
    ]
    marked = await marks(owner)
    assert [marked[number][0] for number in ids] == [True] * 3 + [False] * 3
    assert "exists with other values" in str(marked[ids[3]][2])
    assert len(marked) == 6
    [session] = await rows(owner, "select vehicle_id, upper(during) as ended from charging_session")
    assert (session["vehicle_id"], session["ended"]) == ("v-1", at(60))


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


async def test_thousands(settings: Settings, owner: Owner) -> None:
    """As many letters as one call may take: all of them, in large transactions, some hundred told."""
    await owner.execute(
        "insert into dead_letter (origin, code, message, raw, raw_size) "
        "select 'mqtt:telemetry/meter/m-' || n %% 50, 'future_timestamp', 'm', r, length(r) "
        "from generate_series(1, 10001) as n, lateral (select convert_to(jsonb_build_object('timestamp', "
        "to_char(%s::timestamptz + n * interval '1 second', 'YYYY-MM-DD\"T\"HH24:MI:SS+00:00'), "
        "'voltage', 230, 'kwhConsumedAc', 0.5)::text, 'utf8') as r) as made",
        (at(0),),
    )
    async with replaying(settings) as (replay, _):
        report = await replay.matching(EVERYTHING, 10_000)
    assert (report.stored, report.resolved, report.refused) == (10_000, 10_000, 0)
    assert (len(report.results), report.more) == (500, True)
    [left] = await rows(owner, "select count(*) as n from dead_letter where resolved_at is null")
    assert left["n"] == 1


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

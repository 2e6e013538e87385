"""Replays: each letter goes the way that it came by, under today's rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from service.dead_letters import retry
from service.dead_letters.letter import Filters
from service.settings import Settings
from tests.support.letters import keep, marks, replaying, tables
from tests.support.strategies import (
    Api,
    Owner,
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
    fetch_all = retry.fetch_all  # type: ignore[attr-defined]

    async def counting(*arguments: Any) -> Any:
        asked.append(sorted(arguments[2]["key_ids"]))
        return await fetch_all(*arguments)

    monkeypatch.setattr(retry, "fetch_all", counting)
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

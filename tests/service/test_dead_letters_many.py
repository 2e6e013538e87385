"""Payloads of which much is refused: some hundred letters, one for all the rest, and nothing is lost."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from service.dead_letters.letter import Filters
from service.ingest.decode import decode
from service.ingest.pipeline import Pipeline
from service.readings import TimeRule
from service.settings import Settings
from tests.support.letters import marks, replaying, tables
from tests.support.strategies import (
    Api,
    Owner,
    altered,
    as_json,
    at,
    decoded,
    encode,
    meter,
    problem,
    rfc3339,
    rows,
    vehicle,
)

pytestmark = pytest.mark.anyio

LETTERS = "select * from dead_letter order by dead_letter_id"
EVERYTHING = Filters()
# By which all readings of these tests are too old.
LATE = TimeRule(behind_s=3600.0, now=at(100_000).timestamp)


async def test_a_few_hundred_bytes_fill_no_disk(api: Api, owner: Owner) -> None:
    """49,999 refusals are 101 letters; the answer names each of them, and so do the counters."""
    body = b"[" + b",".join([b"{}"] * 49_999) + b"]"
    packed = gzip.compress(body)
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    told = problem(await api.post("/v1/telemetry", content=packed, headers=headers), 400, "all_refused")
    assert len(told["rejected"]) == 49_999
    *single, rest = await rows(owner, LETTERS)
    assert [(letter["raw"], letter["code"]) for letter in single] == [(b"{}", "missing")] * 100
    assert (rest["code"], rest["origin"]) == ("many_refused", "http:/v1/telemetry")
    assert "49899 more readings" in rest["message"]
    assert single[0]["message"] in rest["message"]
    assert msgspec.json.decode(rest["raw"]) == [{}] * 49_899
    assert rest["raw_size"] == len(rest["raw"])
    [size] = await rows(owner, "select pg_total_relation_size('dead_letter') as bytes")
    assert size["bytes"] < 512 * 1024


async def test_a_hundred_have_a_letter_each(api: Api, owner: Owner) -> None:
    """Up to a hundred nothing is put together, and of one more the last one stands alone."""
    await api.post("/v1/telemetry", json=[{}] * 100)
    assert [letter["code"] for letter in await rows(owner, LETTERS)] == ["missing"] * 100
    await api.post("/v1/telemetry", json=[{}] * 101)
    assert (await rows(owner, LETTERS))[-1]["raw"] == b"[{}]"


async def test_the_rest_is_cut_off_too(settings: Settings, owner: Owner) -> None:
    """No more bytes are kept of it than of any letter; its size is told, and it is not tried again."""
    async with Pipeline(msgspec.structs.replace(settings, dead_letter_max_bytes=1024), "test") as pipeline:
        await pipeline.submit(decode(b"[" + b",".join([b'{"a":1}'] * 300) + b"]", LATE), "http:/v1/telemetry")
    rest = (await rows(owner, LETTERS))[-1]
    assert rest["raw"] == (b"[" + b",".join([b'{"a":1}'] * 200))[:1024]
    assert rest["raw_size"] == 200 * 8 + 1
    async with replaying(settings) as (replay, _):
        report = await replay.those([rest["dead_letter_id"]])
    assert "have it sent again" in str(report.results[0].message)


@pytest.mark.parametrize("shape", ["array", "readings", "lines", "topic"])
async def test_all_of_it_can_be_tried_again(settings: Settings, owner: Owner, api: Api, shape: str) -> None:
    """After a fix each refused reading is stored, however it came, and letters are resolved."""
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    readings = [
        {**as_json(meter("m-1", minute)), "timestamp": rfc3339(soon + timedelta(minutes=minute))}
        for minute in range(250)
    ]
    good = as_json(meter("m-1", 0))
    parts = [*readings[:200], good, *readings[200:]]
    if shape == "lines":
        lines = b"\n".join(msgspec.json.encode(part) for part in parts)
        headers = {"content-type": "application/x-ndjson"}
        answer = await api.post("/v1/telemetry", content=lines, headers=headers)
    elif shape == "topic":
        async with Pipeline(settings, "test") as pipeline:
            took = decode(encode(*parts), TimeRule(), kind="meter", topic_id="m-1")
            await pipeline.submit(took, "mqtt:telemetry/meter/m-1")
    else:
        answer = await api.post("/v1/telemetry", json=parts if shape == "array" else {"readings": parts})
    if shape != "topic":
        assert (answer.json()["accepted"], len(answer.json()["rejected"])) == (1, 250)
    assert len(await rows(owner, LETTERS)) == 101
    async with replaying(settings, clock_ahead_s=3 * 86_400.0) as (replay, _):
        report = await replay.matching(EVERYTHING, 1000)
    assert (report.stored, report.duplicates, report.refused, report.resolved) == (250, 0, 0, 101)
    assert len((await tables(owner))["meter"]) == 251
    assert {mark[0] for mark in (await marks(owner)).values()} == {True}


async def test_conflicts_count_together_with_refusals(pipeline: Pipeline, owner: Owner) -> None:
    """What is found at the commit is not kept apart from what decoding found."""
    await pipeline.submit(decoded(*(meter(minute=minute) for minute in range(80))), "http:/v1/telemetry")
    other = [as_json(meter(minute=minute, kwh=9.0)) for minute in range(80)]
    bad: list[Any] = [altered(vehicle(), soc="full")] * 80
    outcome = await pipeline.submit(decode(encode(*other, *bad), TimeRule()), "http:/v1/telemetry")
    assert len(outcome.rejections) == 80
    *single, rest = await rows(owner, LETTERS)
    assert [letter["code"] for letter in single] == ["wrong_type"] * 80 + ["conflict"] * 20
    assert "60 more readings" in rest["message"]
    assert "conflict: other values" in rest["message"]
    kept = {reading["timestamp"] for reading in msgspec.json.decode(rest["raw"])}
    assert len(kept) == 60


async def test_a_batch_that_is_taken_apart(pipeline: Pipeline, owner: Owner) -> None:
    """Conflicts in many small transactions, and what the database itself refuses, are one payload's still."""
    await owner.execute("alter table meter_reading add check (voltage <> 231)")
    first = [meter(minute=minute) for minute in range(300)]
    await pipeline.submit(decoded(*first), "http:/v1/telemetry")
    mixed = [
        meter("m-2", minute, voltage=231) if minute % 5 == 0 else meter("m-1", minute, kwh=9.0)
        for minute in range(300)
    ]
    outcome = await pipeline.submit(decoded(*mixed, meter("m-3")), "http:/v1/telemetry")
    assert (outcome.accepted, len(outcome.rejections)) == (1, 300)
    *single, rest = await rows(owner, LETTERS)
    assert len(single) == 100
    assert "200 more readings" in rest["message"]
    raws = [msgspec.json.decode(letter["raw"]) for letter in single] + msgspec.json.decode(rest["raw"])
    assert len({(reading["meterId"], reading["timestamp"]) for reading in raws}) == 300


async def test_payloads_of_one_batch_are_kept_apart(settings: Settings, owner: Owner) -> None:
    """Many payloads in one transaction share no letter."""
    one = msgspec.structs.replace(settings, writers=1)
    async with Pipeline(one, "test") as pipeline:
        for name in ("a", "b"):
            await pipeline.submit(decode(encode(*[{"x": name}] * 150), TimeRule()), f"http:/{name}")
    found = await rows(
        owner, "select origin, code, count(*) as n from dead_letter group by 1, 2 order by 1, 2"
    )
    assert [(row["origin"], row["code"], row["n"]) for row in found] == [
        ("http:/a", "many_refused", 1),
        ("http:/a", "missing", 100),
        ("http:/b", "many_refused", 1),
        ("http:/b", "missing", 100),
    ]

"""Telemetry over HTTP: every route of the contract, what it answers, and what is in the tables after it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import psycopg
import pytest

from service.readings import Reading
from service.settings import Settings
from tests.support import servers
from tests.support.strategies import (
    Api,
    Owner,
    altered,
    as_json,
    encode,
    meter,
    problem,
    rows,
    serving,
    vehicle,
)

pytestmark = pytest.mark.anyio

NDJSON: Final = {"content-type": "application/x-ndjson"}
JSON: Final = {"content-type": "application/json"}
ONE_STORED: Final = {"accepted": 1, "duplicates": 0}
ONE_DUPLICATE: Final = {"accepted": 0, "duplicates": 1}


async def stored(owner: Owner, kind: str) -> int:
    """Count the stored readings of a kind."""
    [counted] = await rows(owner, f"select count(*) as n from {kind}_reading")  # noqa: S608 - our own words
    count: int = counted["n"]
    return count


async def test_one_reading(api: Api, owner: Owner) -> None:
    """Each of the routes for one reading stores it, answers 201, and again with a duplicate."""
    routes: dict[str, list[Reading]] = {
        "/v1/telemetry": [meter("m-1"), vehicle("v-1")],
        "/v1/ingest/meter": [meter("m-2")],
        "/v1/ingest/vehicle": [vehicle("v-2")],
        "/v1/ingestion/meter": [meter("m-3")],
        "/v1/ingestion/vehicle": [vehicle("v-3")],
    }
    for route, readings in routes.items():
        for reading in readings:
            for expected in (ONE_STORED, ONE_DUPLICATE):
                response = await api.post(route, json=as_json(reading))
                assert (response.status_code, response.json()) == (201, expected), route
                assert response.headers["content-type"].startswith("application/json")
    found = await rows(owner, "select * from meter_reading order by meter_id")
    assert [row["meter_id"] for row in found] == ["m-1", "m-2", "m-3"]
    first = meter("m-1")
    assert (found[0]["recorded_at"], found[0]["kwh_consumed_ac"], found[0]["voltage"]) == (
        first.recorded_at,
        first.kwh_consumed_ac,
        first.voltage,
    )
    found = await rows(owner, "select * from vehicle_reading order by vehicle_id")
    assert [row["vehicle_id"] for row in found] == ["v-1", "v-2", "v-3"]
    assert (found[0]["soc"], found[0]["kwh_delivered_dc"], found[0]["battery_temp"]) == (50.0, 0.1, 25.0)
    assert await rows(owner, "select * from dead_letter") == []


async def test_batches(api: Api, owner: Owner) -> None:
    """Both batch routes store {"readings": [...]} and answer 200 with the counts and nothing rejected."""
    for kind, make in (("meter", meter), ("vehicle", vehicle)):
        body = {"readings": [as_json(make(minute=minute)) for minute in (0, 1, 2, 2)]}
        route = f"/v1/ingestion/{kind}/batch"
        response = await api.post(route, json=body)
        assert (response.status_code, response.json()) == (
            200,
            {"accepted": 3, "duplicates": 1, "rejected": []},
        )
        response = await api.post(route, json=body)
        assert (response.status_code, response.json()) == (
            200,
            {"accepted": 0, "duplicates": 4, "rejected": []},
        )
        assert await stored(owner, kind) == 3


async def test_mixed_kinds_in_every_shape(api: Api, owner: Owner) -> None:
    """/v1/telemetry takes an array, an envelope and NDJSON with kinds mixed, plain and packed with gzip."""
    arrived = 0
    for place, packed in enumerate((False, True)):
        base = place * 10
        pairs = [(meter(minute=base + n), vehicle(minute=base + n)) for n in range(3)]
        parts = [[msgspec.json.encode(reading) for reading in pair] for pair in pairs]
        payloads = [
            (b"[" + b",".join(parts[0]) + b"]", JSON),
            (b'{"readings": [' + b",".join(parts[1]) + b"]}", JSON),
            (b"\r\n\n".join(parts[2]) + b"\n", NDJSON),
        ]
        for content, headers in payloads:
            extra = {"content-encoding": "gzip"} if packed else {}
            body = gzip.compress(content) if packed else content
            response = await api.post("/v1/telemetry", content=body, headers=headers | extra)
            assert (response.status_code, response.json()) == (
                200,
                {"accepted": 2, "duplicates": 0, "rejected": []},
            )
            arrived += 1
            for kind in ("meter", "vehicle"):
                assert await stored(owner, kind) == arrived


async def test_content_types(api: Api) -> None:
    """JSON by any of its names is taken; a body without a content type is taken for JSON."""
    body = msgspec.json.encode(meter())
    for name in (
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/json; charset=utf-8; profile=x",
        "application/senml+json",
        "application/x-ndjson",
    ):
        response = await api.post("/v1/telemetry", content=body, headers={"content-type": name})
        assert response.status_code in {200, 201}, name
    response = await api.post("/v1/telemetry", content=body)
    assert response.status_code == 201
    for name in ("text/plain", "application/xml", "multipart/form-data", "application/json; charset=latin-1"):
        response = await api.post("/v1/telemetry", content=body, headers={"content-type": name})
        assert problem(response, 415, "unsupported_media_type")["field"] == "content-type"
    for name in ("br", "deflate", "gzip, gzip"):
        response = await api.post("/v1/telemetry", content=body, headers=JSON | {"content-encoding": name})
        assert problem(response, 415, "unsupported_encoding")["field"] == "content-encoding"


async def test_partial_batch(api: Api, owner: Owner) -> None:
    """Of a batch the good rows are stored; duplicates are counted; bad ones and conflicts named by index."""
    await api.post("/v1/telemetry", json=as_json(meter(minute=1)))
    sent = [
        altered(meter(minute=0)),
        altered(meter(minute=1)),
        altered(meter(minute=2), voltage="230"),
        altered(meter(minute=1), kwhConsumedAc=0.9),
        altered(vehicle(), timestamp="2026-01-31T12:00:00"),
        7,
        altered(vehicle()),
    ]
    response = await api.post("/v1/telemetry", json=sent)
    assert response.status_code == 200
    body = response.json()
    assert (body["accepted"], body["duplicates"]) == (2, 1)
    assert [(r["index"], r["field"], r["code"]) for r in body["rejected"]] == [
        (2, "voltage", "wrong_type"),
        (3, "timestamp", "conflict"),
        (4, "timestamp", "naive_timestamp"),
        (5, None, "wrong_shape"),
    ]
    assert all(set(r) == {"index", "field", "code", "message"} and r["message"] for r in body["rejected"])
    letters = await rows(owner, "select * from dead_letter order by dead_letter_id")
    assert sorted(letter["code"] for letter in letters) == sorted(r["code"] for r in body["rejected"])
    for letter in letters:
        place = next(r["index"] for r in body["rejected"] if r["code"] == letter["code"])
        assert json.loads(letter["raw"]) == json.loads(msgspec.json.encode(sent[place]))
        assert letter["raw_size"] == len(letter["raw"])
        assert letter["origin"] == "http:/v1/telemetry"


async def test_conflict(api: Api, owner: Owner) -> None:
    """Other values under a stored key are refused by every shape, and the first stays."""
    await api.post("/v1/ingest/vehicle", json=as_json(vehicle(kwh=0.1)))
    other = as_json(vehicle(kwh=0.2))
    body = problem(await api.post("/v1/ingest/vehicle", json=other), 400, "conflict")
    assert body["field"] == "timestamp"
    body = problem(
        await api.post("/v1/ingestion/vehicle/batch", json={"readings": [other]}), 400, "all_refused"
    )
    assert [(r["index"], r["code"]) for r in body["rejected"]] == [(0, "conflict")]
    [kept] = await rows(owner, "select kwh_delivered_dc from vehicle_reading")
    assert kept["kwh_delivered_dc"] == 0.1
    assert len(await rows(owner, "select * from dead_letter where code = 'conflict'")) == 2


async def test_atomic(api: Api, owner: Owner) -> None:
    """With atomic=true one bad reading or one conflict leaves nothing of the batch behind."""
    route = "/v1/telemetry?atomic=true"
    bad = [altered(meter()), altered(meter(minute=1), voltage=-1), altered(vehicle())]
    body = problem(await api.post(route, json=bad), 400, "atomic_refused")
    assert [(r["index"], r["field"], r["code"]) for r in body["rejected"]] == [(1, "voltage", "out_of_range")]
    assert await rows(owner, "select * from meter_reading") == []
    good = [altered(meter()), altered(vehicle()), altered(vehicle())]
    response = await api.post(route, json=good)
    assert (response.status_code, response.json()) == (
        200,
        {"accepted": 2, "duplicates": 1, "rejected": []},
    )
    body = problem(
        await api.post(route, json=[altered(meter(minute=1)), altered(vehicle(kwh=0.9))]),
        400,
        "atomic_refused",
    )
    assert [(r["index"], r["code"]) for r in body["rejected"]] == [(1, "conflict")]
    assert len(await rows(owner, "select * from meter_reading")) == 1
    # The refused ones were not taken: their sender keeps them.
    assert await rows(owner, "select * from dead_letter") == []
    single = problem(await api.post(route, json=as_json(vehicle(kwh=0.9))), 400, "atomic_refused")
    assert [(r["index"], r["code"]) for r in single["rejected"]] == [(0, "conflict")]


async def test_atomic_over_many_days(api: Api, owner: Owner) -> None:
    """All or nothing holds as well for a batch whose readings lie hundreds of days apart."""
    days = [meter(minute=-1440 * day) for day in range(250)]
    await api.post("/v1/telemetry", json=as_json(days[100]))
    sent = [
        altered(reading, **({"voltage": 1} if place == 100 else {})) for place, reading in enumerate(days)
    ]
    problem(await api.post("/v1/telemetry?atomic=true", json=sent), 400)
    assert await stored(owner, "meter") == 1
    assert await rows(owner, "select * from dead_letter") == []


async def test_rejected_has_one_shape(api: Api) -> None:
    """A refusal names index, field, code and message, whichever answer it stands in."""
    await api.post("/v1/telemetry", json=as_json(meter()))
    conflicting = [as_json(meter(kwh=0.9))]
    for route in ("/v1/telemetry", "/v1/telemetry?atomic=true"):
        response = await api.post(route, json=conflicting)
        assert [set(r) for r in response.json()["rejected"]] == [{"index", "field", "code", "message"}], route


async def test_routes_take_their_own_shape(api: Api, owner: Owner) -> None:
    """A route for one refuses many, a route for batches refuses one, and both refuse the other kind."""
    one, many = as_json(meter()), {"readings": [as_json(meter())]}
    problem(await api.post("/v1/ingest/meter", json=many), 400, "wrong_shape")
    problem(await api.post("/v1/ingest/meter", json=[one]), 400, "wrong_shape")
    problem(await api.post("/v1/ingestion/meter/batch", json=one), 400, "wrong_shape")
    assert problem(await api.post("/v1/ingest/vehicle", json=one), 400, "missing")["field"] == "vehicleId"
    problem(await api.post("/v1/ingestion/vehicle/batch", json=many), 400, "all_refused")
    assert await rows(owner, "select * from meter_reading") == []


async def test_any_zone_is_stored(api: Api, owner: Owner) -> None:
    """Every offset that RFC 3339 can write is stored as the moment that it means, alone and in a batch."""
    offsets = ("+00:00", "-00:00", "+14:00", "-12:00", "+05:45", "+15:59", "+16:00", "-23:59", "+23:59")
    sent = [altered(meter(f"m{n}"), timestamp=f"2026-01-31T12:00:00{zone}") for n, zone in enumerate(offsets)]
    for place, reading in enumerate(sent):
        response = await api.post("/v1/ingest/meter", json=reading)
        assert response.status_code == 201, (offsets[place], response.text)
    response = await api.post("/v1/ingestion/meter/batch", json={"readings": sent})
    assert response.json() == {"accepted": 0, "duplicates": len(sent), "rejected": []}
    assert len(await rows(owner, "select * from meter_reading")) == len(sent)


async def test_too_large(settings: Settings) -> None:
    """Too many bytes as they arrive, too many once unpacked, and too many readings are each a 413."""
    async with serving(
        settings, http_max_body_bytes=2000, http_max_decoded_bytes=3000, http_max_readings=3
    ) as small:
        long = json.dumps(as_json(meter()) | {"note": "x" * 3000}).encode()
        problem(await small.post("/v1/telemetry", content=long, headers=JSON), 413, "too_large")
        packed = JSON | {"content-encoding": "gzip"}
        body = problem(
            await small.post("/v1/telemetry", content=gzip.compress(long), headers=packed), 413, "too_large"
        )
        assert "3000" in body["detail"]
        readings = [as_json(meter(minute=minute)) for minute in range(4)]
        lines = b"\n".join(map(msgspec.json.encode, readings))
        batch = "/v1/ingestion/meter/batch"
        for response in (
            await small.post("/v1/telemetry", json=readings),
            await small.post("/v1/telemetry", content=lines, headers=NDJSON),
            await small.post(batch, json={"readings": readings}),
        ):
            problem(response, 413, "too_many_readings")
        response = await small.post(batch, json={"readings": readings[:3]})
        assert response.json() == {"accepted": 3, "duplicates": 0, "rejected": []}


async def test_buffer_full(settings: Settings, owner: Owner) -> None:
    """While the buffer is full a request is answered 503 with Retry-After; the one inside is stored."""
    async with serving(settings, buffer_max_readings=1) as small:
        async with owner.transaction():
            await owner.execute("lock table meter_reading in access exclusive mode")
            first = asyncio.create_task(small.post("/v1/ingest/meter", json=as_json(meter())))
            await asyncio.sleep(0.1)
            response = await small.post("/v1/ingest/vehicle", json=as_json(vehicle()))
            problem(response, 503, "unavailable")
            assert int(response.headers["retry-after"]) > 0
            assert not first.done()
        assert (await first).json() == ONE_STORED
        response = await small.post("/v1/ingest/vehicle", json=as_json(vehicle()))
        assert response.json() == ONE_STORED


@asynccontextmanager
async def forwarding(port: int, to_port: int) -> AsyncIterator[None]:
    """Let a port lead to another one: a network that came back."""
    writers: list[asyncio.StreamWriter] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", to_port)
        await asyncio.gather(copy(reader, back_writer), copy(back_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def test_database_away(settings: Settings, owner: Owner) -> None:
    """Without a database: 503 with Retry-After, nothing stored; once it is back: stored once."""
    port = servers.free_port()
    known = psycopg.conninfo.conninfo_to_dict(settings.database_url)
    away = psycopg.conninfo.make_conninfo(settings.database_url, host="127.0.0.1", port=port)
    async with serving(settings, database_url=away, http_commit_timeout_s=0.2) as client:
        # The network must be back before the application stops: it drains what it holds.
        async with asyncio.timeout(20):
            for body in (as_json(meter()), as_json(meter()), [as_json(meter())]):
                response = await client.post("/v1/telemetry", json=body)
                problem(response, 503, "unavailable")
                assert int(response.headers["retry-after"]) > 0
            problem(await client.get("/health/ready"), 503, "unavailable")
            assert (await client.get("/health/live")).status_code == 200
        assert await rows(owner, "select * from meter_reading") == []
        async with forwarding(port, int(known["port"] or 0)), asyncio.timeout(20):
            for _ in range(300):
                response = await client.post("/v1/telemetry", json=as_json(meter()))
                if response.status_code != 503:
                    break
                # Refused at once, without a turn of the loop: let the writer have one.
                await asyncio.sleep(0.05)
            # Whether it takes a key is not known without the database: no request got any further.
            assert (response.status_code, response.json()) == (201, ONE_STORED)
            assert len(await rows(owner, "select * from meter_reading")) == 1


async def test_a_client_that_leaves_takes_nothing_with_it(settings: Settings, owner: Owner) -> None:
    """A request that is given up while its commit is under way neither breaks the writer nor blocks it."""
    async with serving(settings, http_commit_timeout_s=0.2) as client:
        async with owner.transaction():
            await owner.execute("lock table meter_reading in access exclusive mode")
            response = await client.post("/v1/ingest/meter", json=as_json(meter()))
            problem(response, 503, "unavailable")
        response = await client.post("/v1/ingest/meter", json=as_json(meter()))
        assert (response.status_code, response.json()) == (201, ONE_DUPLICATE)
    assert len(await rows(owner, "select * from meter_reading")) == 1


async def test_a_large_batch_is_stored_whole(api: Api, owner: Owner) -> None:
    """A request larger than one transaction's worth of readings is answered with exact counts."""
    readings = [meter(f"m-{n % 300}", n // 300) for n in range(12_000)]
    body = gzip.compress(encode(*readings, *readings[:100]), 1)
    response = await api.post("/v1/telemetry", content=body, headers=JSON | {"content-encoding": "gzip"})
    assert response.json() == {"accepted": 12_000, "duplicates": 100, "rejected": []}
    [counted] = await rows(owner, "select count(*) as n from meter_reading")
    assert counted["n"] == 12_000

"""A key that is bound to devices: readings of others are refused one by one, whatever the payload's shape."""

from __future__ import annotations

from typing import Any, Final

import pytest

from service.settings import Settings
from tests.support.keys import bearer, make_key
from tests.support.strategies import Owner, altered, as_json, encode, meter, problem, rows, serving, vehicle

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

TELEMETRY: Final = "/v1/telemetry"
OWN: Final = [as_json(meter("m-1")), as_json(vehicle("v-1"))]
FOREIGN: Final = [
    as_json(meter("m-2")),
    as_json(vehicle("v-2")),
    as_json(meter("v-1")),
    as_json(vehicle("m-1")),
]
LINES: Final = {"content-type": "application/x-ndjson"}


@pytest.fixture
def headers(settings: Settings) -> dict[str, Any]:
    """Give the headers of a key for the meter m-1 and the vehicle v-1."""
    return bearer(make_key(settings, "ingest", meters=("m-1",), vehicles=("v-1",)))


async def stored(owner: Owner) -> list[str]:
    """Give the devices that have readings."""
    found = await rows(
        owner, "select meter_id as id from meter_reading union all select vehicle_id from vehicle_reading"
    )
    return sorted(row["id"] for row in found)


async def test_one_reading(settings: Settings, owner: Owner, headers: dict[str, Any]) -> None:
    """Its own is stored; another's is 403 that names the field, on each route, and kept as a dead letter."""
    async with serving(settings) as client:
        for reading in OWN:
            assert (await client.post(TELEMETRY, json=reading, headers=headers)).status_code == 201
        for route, reading, field in (
            (TELEMETRY, as_json(meter("m-2")), "meterId"),
            (TELEMETRY, as_json(vehicle("v-2")), "vehicleId"),
            ("/v1/ingest/meter", as_json(meter("v-1")), "meterId"),
            ("/v1/ingestion/vehicle", as_json(vehicle("m-1")), "vehicleId"),
        ):
            refused = await client.post(route, json=reading, headers=headers)
            told = problem(refused, 403, "foreign_device")
            assert told["field"] == field
    assert await stored(owner) == ["m-1", "v-1"]
    letters = await rows(owner, "select code, device_id from dead_letter order by device_id")
    assert [(row["code"], row["device_id"]) for row in letters] == [
        ("foreign_device", one) for one in ("m-1", "m-2", "v-1", "v-2")
    ]


async def test_batches(settings: Settings, owner: Owner, headers: dict[str, Any]) -> None:
    """In arrays, envelopes and lines the good ones are stored, the others named by their place."""
    mixed: list[Any] = [OWN[0], FOREIGN[0], "nonsense", FOREIGN[1], OWN[1]]
    async with serving(settings) as client:
        for body, kind in (
            (encode(*mixed), {}),
            (b'{"readings":' + encode(*mixed) + b"}", {}),
            (b"\n".join(encode(one)[1:-1] for one in mixed), LINES),
        ):
            answer = await client.post(TELEMETRY, content=body, headers={**headers, **kind})
            assert answer.status_code == 200, answer.text
            told = answer.json()
            assert told["accepted"] + told["duplicates"] == 2
            assert [(one["index"], one["code"], one["field"]) for one in told["rejected"]] == [
                (1, "foreign_device", "meterId"),
                (2, "wrong_shape", None),
                (3, "foreign_device", "vehicleId"),
            ]
        answer = await client.post(
            "/v1/ingestion/meter/batch", json={"readings": [FOREIGN[0], OWN[0]]}, headers=headers
        )
        assert [one["index"] for one in answer.json()["rejected"]] == [0]
    assert await stored(owner) == ["m-1", "v-1"]
    raw = await rows(owner, "select distinct convert_from(raw, 'UTF8') as raw from dead_letter")
    assert len(raw) == 3


async def test_nothing_left(settings: Settings, owner: Owner, headers: dict[str, Any]) -> None:
    """A batch with nothing good and others' readings in it is 403; with bad ones alone 400, as ever."""
    bad = altered(meter("m-1"), voltage=-1)
    async with serving(settings) as client:
        for batch, status in ((FOREIGN, 403), ([bad, FOREIGN[0]], 403), ([bad, bad], 400)):
            refused = await client.post(TELEMETRY, json=batch, headers=headers)
            told = problem(refused, status, "all_refused")
            assert len(told["rejected"]) == len(batch)
            assert [one["index"] for one in told["rejected"]] == list(range(len(batch)))
    assert await stored(owner) == []


async def test_all_or_nothing(settings: Settings, owner: Owner, headers: dict[str, Any]) -> None:
    """One reading of another device refuses all, and none of it is kept."""
    async with serving(settings) as client:
        refused = await client.post(f"{TELEMETRY}?atomic=true", json=[*OWN, FOREIGN[0]], headers=headers)
        told = problem(refused, 403, "atomic_refused")
        assert [(one["index"], one["code"]) for one in told["rejected"]] == [(2, "foreign_device")]
        assert await stored(owner) == []
        answer = await client.post(f"{TELEMETRY}?atomic=true", json=OWN, headers=headers)
        assert answer.json()["accepted"] == 2
    assert await rows(owner, "select * from dead_letter") == []


async def test_payloads_that_are_none(settings: Settings, headers: dict[str, Any]) -> None:
    """What cannot be read is refused as it is for anybody."""
    async with serving(settings) as client:
        for body, code in ((b"", "empty_body"), (b"{", "malformed_json"), (b"[]", "empty_batch")):
            problem(await client.post(TELEMETRY, content=body, headers=headers), 400, code)


async def test_one_kind_only(settings: Settings, owner: Owner) -> None:
    """A key with meters only sends nothing of vehicles; one with a scope to read besides reads everything."""
    headers = bearer(make_key(settings, "ingest", "read", meters=("m-1",)))
    async with serving(settings) as client:
        answer = await client.post(TELEMETRY, json=OWN, headers=headers)
        assert [one["field"] for one in answer.json()["rejected"]] == ["vehicleId"]
        assert (await client.get("/v1/analytics/stats", headers=headers)).status_code == 200
    assert await stored(owner) == ["m-1"]

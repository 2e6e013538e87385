"""Dead letters over HTTP: listed, filtered, paged, counted, looked at, and what a request may get wrong."""

from __future__ import annotations

import base64
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.settings import Settings
from tests.support.letters import keep
from tests.support.strategies import Api, Owner, altered, meter, problem, rfc3339, serving, vehicle

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

# Of late: what is too old is pruned.
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)


async def listed(api: Api, **parameters: Any) -> list[int]:
    """Give the ids of the letters of a list, which must be its last page."""
    response = await api.get("/v1/dead-letters", params=parameters)
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["next"] is None
    return [letter["id"] for letter in body["deadLetters"]]


async def test_what_is_refused_is_listed(api: Api) -> None:
    """A refused reading is told with its reason, the field to blame and its bytes."""
    bad = altered(meter(), voltage="230")
    assert (await api.post("/v1/telemetry", json=bad)).status_code == 400
    body = (await api.get("/v1/dead-letters")).json()
    [letter] = body["deadLetters"]
    assert body["next"] is None
    assert set(letter) == {
        "id",
        "receivedAt",
        "origin",
        "kind",
        "deviceId",
        "code",
        "field",
        "message",
        "raw",
        "rawBase64",
        "rawSize",
        "truncated",
        "replays",
        "replayedAt",
        "replayError",
        "resolvedAt",
    }
    assert (letter["origin"], letter["kind"], letter["deviceId"]) == ("http:/v1/telemetry", "meter", "m-1")
    assert (letter["code"], letter["field"]) == ("wrong_type", "voltage")
    assert '"voltage" must be' in letter["message"]
    assert '"230"' in letter["raw"]
    assert (letter["rawSize"], letter["truncated"]) == (len(letter["raw"]), False)
    assert (letter["replays"], letter["replayedAt"], letter["resolvedAt"]) == (0, None, None)
    assert (await api.get(f"/v1/dead-letters/{letter['id']}")).json() == letter


async def test_bytes_that_are_no_text(api: Api, owner: Owner) -> None:
    """What is not UTF-8 comes in Base64; what was cut off says so, and how long it was."""
    raw = bytes(range(256))
    number = await keep(owner, raw, "mqtt:telemetry/meter/m-1", code="malformed_json", raw_size=300_000)
    letter = (await api.get(f"/v1/dead-letters/{number}")).json()
    assert letter["raw"] is None
    assert base64.b64decode(letter["rawBase64"]) == raw
    assert (letter["rawSize"], letter["truncated"]) == (300_000, True)
    nul = await keep(owner, b"a\0b\x1b[31m")
    assert (await api.get(f"/v1/dead-letters/{nul}")).json()["raw"] == "a\0b\x1b[31m"


async def test_filters(api: Api, owner: Owner) -> None:
    """Each filter by itself and together; the newest come first; resolved ones only if they are asked for."""
    one = await keep(owner, {}, "mqtt:telemetry/meter/m-1", kind="meter", device_id="m-1", code="conflict")
    two = await keep(owner, {}, "http:/v1/telemetry", kind="vehicle", device_id="v-1", received_at=NOW)
    three = await keep(owner, {}, "mqtt:telemetry/vehicle/v-1", kind="vehicle", device_id="v-1")
    four = await keep(owner, {}, "import:a%_.csv:1-9", received_at=NOW + timedelta(hours=1))
    await owner.execute("update dead_letter set resolved_at = now() where dead_letter_id = %s", (three,))
    assert await listed(api) == [four, two, one]
    assert await listed(api, state="resolved") == [three]
    assert await listed(api, state="all") == [four, three, two, one]
    assert await listed(api, kind="vehicle", state="all") == [three, two]
    assert await listed(api, deviceId="m-1") == [one]
    assert await listed(api, code="conflict") == [one]
    assert await listed(api, origin="mqtt:", state="all") == [three, one]
    # A prefix is taken as it is: no wildcard.
    assert await listed(api, origin="import:a%_") == [four]
    assert await listed(api, origin="%") == []
    assert await listed(api, **{"from": rfc3339(NOW), "to": rfc3339(NOW + timedelta(hours=1))}) == [two]
    assert await listed(api, to=rfc3339(NOW + timedelta(minutes=61))) == [four, two]
    assert await listed(api, kind="vehicle", origin="mqtt:", state="all", code="future_timestamp") == [three]


async def test_pages(api: Api, owner: Owner) -> None:
    """Pages follow each other without gap or repeat, also while letters come in; the last one says so."""
    ids = [await keep(owner, {"n": n}) for n in range(7)]
    seen: list[int] = []
    after: dict[str, Any] = {}
    for _ in range(10):
        body = (await api.get("/v1/dead-letters", params={"limit": 3, **after})).json()
        seen += [letter["id"] for letter in body["deadLetters"]]
        await keep(owner, {})
        if body["next"] is None:
            break
        after = {"after": body["next"]}
    assert seen == ids[::-1]
    # Full to the brim is a last page too.
    body = (await api.get("/v1/dead-letters", params={"limit": 3, "after": ids[3]})).json()
    assert ([letter["id"] for letter in body["deadLetters"]], body["next"]) == (ids[2::-1], None)


async def test_a_page_holds_no_more_than_some_mebibytes(api: Api, owner: Owner) -> None:
    """Large letters make short pages, and all of them come."""
    large = random.Random(1).randbytes(256 * 1024)
    ids = [await keep(owner, large) for _ in range(40)]
    ids.append(await keep(owner, large * 40))
    seen: list[int] = []
    after: dict[str, Any] = {}
    sizes: list[int] = []
    while not sizes or after:
        body = (await api.get("/v1/dead-letters", params=after)).json()
        sizes.append(len(body["deadLetters"]))
        seen += [letter["id"] for letter in body["deadLetters"]]
        after = {"after": body["next"]} if body["next"] else {}
    assert seen == ids[::-1]
    assert sizes == [1, 32, 8]


async def test_summary(api: Api, owner: Owner) -> None:
    """Letters by code and kind: how many, how many wait, their bytes, the oldest and the newest."""
    day = NOW - timedelta(days=1)
    await keep(owner, b"1234", code="conflict", kind="meter", received_at=day)
    gone = await keep(owner, b"12", code="conflict", kind="meter", received_at=NOW)
    await keep(owner, b"1", code="too_deep", received_at=NOW)
    await owner.execute("update dead_letter set resolved_at = now() where dead_letter_id = %s", (gone,))
    assert (await api.get("/v1/dead-letters/summary")).json() == {
        "groups": [
            {
                "code": "conflict",
                "kind": "meter",
                "letters": 2,
                "waiting": 1,
                "rawBytes": 6,
                "oldest": rfc3339(day),
                "newest": rfc3339(NOW),
            },
            {
                "code": "too_deep",
                "kind": None,
                "letters": 1,
                "waiting": 1,
                "rawBytes": 1,
                "oldest": rfc3339(NOW),
                "newest": rfc3339(NOW),
            },
        ]
    }


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"kind": "charger"}, "kind"),
        ({"deviceId": "a b"}, "deviceId"),
        ({"code": "x'y"}, "code"),
        ({"origin": ""}, "origin"),
        ({"origin": "a\0b"}, "origin"),
        ({"from": "soon"}, "from"),
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "from"),
        ({"state": "lost"}, "state"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"after": "1.5"}, "after"),
        ({"after": "99999999999999999999"}, "after"),
    ],
)
async def test_bad_parameters(api: Api, parameters: dict[str, str], field: str) -> None:
    """A parameter that is not valid is a 400 that names it."""
    response = await api.get("/v1/dead-letters", params=parameters)
    assert problem(response, 400, "bad_parameter")["field"] == field


async def test_a_letter_that_is_not_there(api: Api) -> None:
    """404 for one that never was or is gone, 400 for what is no id."""
    problem(await api.get("/v1/dead-letters/12345"), 404, "unknown_dead_letter")
    problem(await api.get("/v1/dead-letters/last"), 400, "bad_parameter")


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"kinds": "meter"}, "unknown_field", "kinds"),
        ({"ids": [1], "code": "conflict"}, "ambiguous", "ids"),
        ({"ids": []}, "bad_value", "ids"),
        ({"ids": ["1"]}, "bad_value", "ids"),
        ({"limit": 10_001}, "bad_value", "limit"),
        ({"code": "A"}, "bad_parameter", "code"),
        ({"from": "soon"}, "bad_parameter", "from"),
        ([], "wrong_shape", None),
    ],
)
async def test_bad_replays(api: Api, owner: Owner, body: Any, code: str, field: str | None) -> None:
    """A request that is not understood replays nothing: above all no filter with a mistyped name."""
    await keep(owner, altered(meter()))
    response = await api.post("/v1/dead-letters/replay", json=body)
    assert problem(response, 400, code).get("field") == field
    assert (await api.get("/v1/dead-letters")).json()["deadLetters"][0]["replays"] == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"limit":"x","limit":5}', "wrong_shape"),
        (b'{"from":5,"from":null}', "wrong_shape"),
        (b'{"":1}', "unknown_field"),
        (b'{"ids":[1],"x":1,"ids":"y"}', "bad_value"),
        (b'{"limit":' + b"[" * 100_000, "too_deep"),
    ],
)
async def test_odd_replays(api: Api, body: bytes, code: str) -> None:
    """What no client of ours sends is the fault of who sends it."""
    headers = {"content-type": "application/json"}
    problem(await api.post("/v1/dead-letters/replay", content=body, headers=headers), 400, code)


async def test_a_replay_by_as_many_ids_as_it_may_name(api: Api) -> None:
    """5,000 ids of any length fit the bound of a body; more than a mebibyte does not."""
    ids = [2**53 - number for number in range(5000)]
    told = (await api.post("/v1/dead-letters/replay", json={"ids": ids})).json()
    assert told["skipped"] == 5000
    late = await api.post("/v1/dead-letters/replay", json={"code": "x" * 1024 * 1024})
    problem(late, 413, "too_large")


async def test_a_replay_over_http(api: Api, owner: Owner) -> None:
    """Letters by filter and by id: what is good by now is stored, counted and told letter by letter."""
    good = await keep(owner, altered(meter()), kind="meter")
    bad = await keep(owner, altered(vehicle(), soc=101), code="out_of_range", kind="vehicle")
    response = await api.post("/v1/dead-letters/replay", json={"kind": "meter"})
    assert response.json() == {
        "replayed": 1,
        "resolved": 1,
        "stored": 1,
        "duplicates": 0,
        "refused": 0,
        "skipped": 0,
        "results": [
            {
                "id": good,
                "result": "stored",
                "stored": 1,
                "duplicates": 0,
                "refused": 0,
                "code": None,
                "message": None,
            }
        ],
        "more": False,
        "next": None,
    }
    report = (await api.post("/v1/dead-letters/replay", json={"ids": [bad, good, 999_999, bad]})).json()
    assert (report["replayed"], report["resolved"], report["refused"], report["skipped"]) == (1, 0, 1, 2)
    results = {each["id"]: (each["result"], each["code"], each["message"]) for each in report["results"]}
    assert results[bad][:2] == ("refused", "out_of_range")
    assert results[good] == ("skipped", None, "it is resolved already")
    assert results[999_999] == ("skipped", None, "there is no such dead letter")
    letter = (await api.get(f"/v1/dead-letters/{bad}")).json()
    assert (letter["replays"], letter["resolvedAt"]) == (1, None)
    assert letter["replayError"].startswith('out_of_range: "soc" must be')
    assert (await api.get("/v1/ingest/meter/m-1/current")).status_code == 200


async def test_a_replay_in_parts(api: Api, owner: Owner) -> None:
    """At most `limit` letters, the oldest first; `next` leads on past those that are refused again."""
    ids = [await keep(owner, altered(meter(minute=n), voltage=-n)) for n in range(5)]
    after: dict[str, Any] = {}
    seen: list[list[int]] = []
    for _ in range(3):
        report = (await api.post("/v1/dead-letters/replay", json={"limit": 2, **after})).json()
        seen.append([result["id"] for result in report["results"]])
        after = {"after": report["next"]}
    assert seen == [ids[:2], ids[2:4], ids[4:]]
    assert (report["more"], report["next"]) == (False, None)


async def test_only_json(api: Api) -> None:
    """The body is one JSON object; lines of them are another content type."""
    response = await api.post(
        "/v1/dead-letters/replay", content=b"{}", headers={"Content-Type": "application/x-ndjson"}
    )
    problem(response, 415, "unsupported_media_type")


async def test_without_a_database() -> None:
    """Every route says 503 while the database is away."""
    async with serving(Settings(database_url="postgresql://127.0.0.1:1/none")) as client:
        for path in ("/v1/dead-letters", "/v1/dead-letters/1", "/v1/dead-letters/summary"):
            problem(await client.get(path), 503, "unavailable")
        problem(await client.post("/v1/dead-letters/replay", json={}), 503, "unavailable")

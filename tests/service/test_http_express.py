"""The short way in: the same answers, to the header, as the framework's own way."""

from __future__ import annotations

import gzip
import json
from typing import Any, Final

import httpx
import pytest

from service.ingest import http as ingest_http
from service.readings import Reading
from service.settings import Settings
from service.web.express import Express
from tests.support.keys import bearer, make_key
from tests.support.strategies import Api, Owner, altered, as_json, meter, rows, serving, vehicle

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

PATHS: Final = (
    "/v1/telemetry",
    "/v1/ingest/meter",
    "/v1/ingestion/meter",
    "/v1/ingest/vehicle",
    "/v1/ingestion/vehicle",
    "/v1/ingestion/meter/batch",
    "/v1/ingestion/vehicle/batch",
)
JSON: Final = {"content-type": "application/json"}


def one(reading: Reading) -> bytes:
    """Give a reading as the body of a request."""
    return json.dumps(as_json(reading)).encode()


ONE: Final = one(meter())
MANY: Final = b'{"readings":[' + ONE + b"," + json.dumps(altered(meter())).encode() + b',{"meterId":7}]}'
# Headers and a body, each with what is wrong with it or good.
REQUESTS: Final[list[tuple[dict[str, str], bytes]]] = [
    (JSON, ONE),
    ({}, ONE),
    (JSON, one(vehicle())),
    (JSON, MANY),
    (JSON, b"[" + ONE + b"," + one(vehicle()) + b"]"),
    ({"content-type": "application/x-ndjson"}, ONE + b"\n" + one(meter(minute=1))),
    ({**JSON, "content-encoding": "gzip"}, gzip.compress(ONE)),
    ({**JSON, "content-encoding": "gzip"}, ONE),
    ({**JSON, "content-encoding": "br"}, ONE),
    ({"content-type": "text/plain"}, ONE),
    ({"content-type": "application/json; charset=latin-1"}, ONE),
    (JSON, b""),
    (JSON, b"{"),
    (JSON, b"[]"),
    (JSON, b"7"),
    (JSON, b'{"readings":7}'),
    (JSON, ONE.replace(b"230", b"-1")),
    (JSON, b"[" + ONE.replace(b"230", b"-1") + b"]"),
    (JSON, b" " * 3_000_000),
]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the paths that go the short way."""
    found: list[str] = []
    take = Express.take

    async def noted(self: Express, route: Any, scope: Any, *rest: Any) -> int:
        found.append(scope["path"])
        return await take(self, route, scope, *rest)

    monkeypatch.setattr(Express, "take", noted)
    return found


async def hold_together(
    client: httpx.AsyncClient, taken: list[str], headers: dict[str, str] | None = None, most: int = 100
) -> set[int]:
    """Send each request to each path both ways; give the statuses that came."""
    statuses = set()
    for path in PATHS:
        for own, body in REQUESTS[:most]:
            # Both are repeats of what is there by then.
            await client.post(path, content=body, headers={**own, **(headers or {})})
            taken.clear()
            answers = [
                await client.post(path + asked, content=body, headers={**own, **(headers or {})})
                for asked in ("", "?unknown=1")
            ]
            assert taken == [path]
            short, long = answers
            assert short.status_code == long.status_code, (path, own, body[:80], short.text, long.text)
            assert short.content == long.content
            assert dict(short.headers) == dict(long.headers)
            statuses.add(short.status_code)
    return statuses


async def test_both_ways_answer_alike(settings: Settings, owner: Owner, taken: list[str]) -> None:
    """Whatever is sent to whichever path, what comes back is the same, and so is what is kept."""
    small: Any = {"http_max_body_bytes": 1_000_000}
    async with serving(settings, **small) as client:
        assert await hold_together(client, taken) == {200, 201, 400, 413, 415}
    origins = await rows(owner, "select origin, count(*) as n from dead_letter group by 1")
    # Each was sent three times: twice the short way, once the long one.
    assert origins
    assert all(row["n"] % 3 == 0 for row in origins), origins


async def test_keys_count_on_both(settings: Settings, taken: list[str]) -> None:
    """Without a key, with a wrong one, with one for reading, with one that is bound to other devices."""
    make_key(settings, "ingest")
    reader, bound = make_key(settings, "read"), make_key(settings, "ingest", meters=("other",))
    async with serving(settings) as client:
        assert await hold_together(client, taken, most=1) == {401}
        assert await hold_together(client, taken, {"x-api-key": "fw_wrong"}, 1) == {401}
        assert await hold_together(client, taken, bearer(reader), 1) == {403}
        assert 403 in await hold_together(client, taken, bearer(bound))


async def test_the_unusual_goes_the_long_way(api: Api, taken: list[str]) -> None:
    """A query, another method, a page's request, another path."""
    await api.post("/v1/telemetry?atomic=true", content=ONE, headers=JSON)
    await api.post("/v1/telemetry", content=ONE, headers={**JSON, "origin": "http://testserver.local"})
    await api.get("/v1/telemetry")
    await api.post("/v1/sessions", content=b"{}", headers=JSON)
    assert taken == []
    await api.post("/v1/telemetry", content=ONE, headers=JSON)
    assert taken == ["/v1/telemetry"]


async def test_a_defect_is_answered(
    settings: Settings, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody foresaw is a 500 without details, and the next request is served."""

    def broken(*_arguments: object) -> None:
        raise RuntimeError("a defect")

    async with serving(settings) as client:
        with monkeypatch.context() as patch:
            patch.setattr(ingest_http, "refuse_foreign", broken)
            answers = [
                await client.post("/v1/telemetry" + asked, content=ONE, headers=JSON)
                for asked in ("", "?unknown=1")
            ]
        assert [answer.status_code for answer in answers] == [500, 500]
        assert answers[0].content == answers[1].content
        assert b"defect" not in answers[0].content
        assert (await client.post("/v1/telemetry", content=ONE, headers=JSON)).status_code == 201
    assert len(taken) == 2

"""Bad requests: each is a 4xx in problem details, never a 5xx, and the good reading after it is stored."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
import psycopg
import pytest
from psycopg.rows import dict_row

from service.settings import Settings
from tests.conftest import EDITIONS
from tests.support.servers import Postgres
from tests.support.strategies import Owner, altered, as_json, meter, problem, rows, serving, vehicle

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

# One database for the whole file: what is refused leaves nothing but dead letters behind.


@pytest.fixture(scope="module", params=EDITIONS)
def edition(request: pytest.FixtureRequest) -> str:
    """Name the edition under test."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def postgres(edition: str, running_servers: dict[str, Postgres]) -> Postgres:
    """Give the server of the edition."""
    return running_servers[edition]


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[str]:
    """Give the database of this file."""
    with postgres.database() as name:
        yield name


@pytest.fixture(scope="module")
async def client(postgres: Postgres, database: str) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of an application that takes at most 250 kB, 400 kB unpacked."""
    settings = Settings(database_url=postgres.url("fleetwatt_service", database), retry_max_s=0.2)
    async with serving(
        settings, http_max_body_bytes=250_000, http_max_decoded_bytes=400_000, http_max_readings=50
    ) as running:
        yield running


@pytest.fixture(scope="module")
async def owner(postgres: Postgres, database: str) -> AsyncIterator[Owner]:
    """Give a connection to look into the tables."""
    url = postgres.url("fleetwatt_owner", database)
    async with await psycopg.AsyncConnection.connect(
        url, autocommit=True, row_factory=dict_row
    ) as connection:
        yield connection


JSON: Final = {"content-type": "application/json"}
NDJSON: Final = {"content-type": "application/x-ndjson"}
GOOD: Final = msgspec.json.encode(meter())
DEEP: Final = 100_000
_MINUTES: Final = itertools.count(-1)


def bad(reading: Any = None, **changes: Any) -> bytes:
    """Give a good reading with something spoilt."""
    return msgspec.json.encode(altered(reading or meter(), **changes))


# What arrives at POST /v1/telemetry; the code and the field of the answer.
READINGS: Final[dict[str, tuple[bytes, str, str | None]]] = {
    "empty": (b"", "empty_body", None),
    "white space": (b" \r\n", "empty_body", None),
    "cut off": (GOOD[:-1], "malformed_json", None),
    "two values": (GOOD + GOOD, "malformed_json", None),
    "single quotes": (GOOD.replace(b'"', b"'"), "malformed_json", None),
    "NaN": (GOOD.replace(b"0.1", b"NaN"), "malformed_json", None),
    "Infinity": (GOOD.replace(b"0.1", b"-Infinity"), "malformed_json", None),
    "UTF-16": (GOOD.decode().encode("utf-16"), "malformed_json", None),
    "BOM": (b"\xef\xbb\xbf" + GOOD, "malformed_json", None),
    "packed without saying so": (gzip.compress(GOOD), "malformed_json", None),
    "NUL": (b"\0", "malformed_json", None),
    "form": (b"meterId=m-1&voltage=230", "malformed_json", None),
    "not UTF-8 in an id": (GOOD.replace(b"m-1", b"\xff"), "wrong_type", "meterId"),
    "half a surrogate": (GOOD.replace(b"m-1", rb"\ud800"), "malformed_json", None),
    "a number": (b"1", "wrong_shape", None),
    "a string": (b'"reading"', "wrong_shape", None),
    "null": (b"null", "wrong_shape", None),
    "readings null": (b'{"readings": null}', "wrong_shape", "readings"),
    "readings an object": (b'{"readings": ' + GOOD + b"}", "wrong_shape", "readings"),
    "empty array": (b"[]", "empty_batch", None),
    "empty envelope": (b'{"readings": []}', "empty_batch", None),
    "array of arrays": (b"[[" + GOOD + b"]]", "all_refused", None),
    "empty object": (b"{}", "missing", "meterId"),
    "too deep": (b"[" * DEEP + b"]" * DEEP, "too_deep", None),
    "too deep and never closed": (b'{"a":' * (DEEP // 3), "too_deep", None),
    "too deep in a field": (GOOD[:-1] + b',"x":' + b"[" * DEEP + b"]" * DEEP + b"}", "too_deep", None),
    "both kinds": (msgspec.json.encode(as_json(meter()) | as_json(vehicle())), "ambiguous", "vehicleId"),
    "number as a string": (bad(voltage="230"), "wrong_type", "voltage"),
    "boolean": (bad(kwhConsumedAc=True), "wrong_type", "kwhConsumedAc"),
    "null field": (bad(vehicle(), soc=None), "wrong_type", "soc"),
    "beyond floats": (GOOD.replace(b"0.1", b"1e999"), "wrong_type", "kwhConsumedAc"),
    "negative energy": (bad(kwhConsumedAc=-0.001), "out_of_range", "kwhConsumedAc"),
    "too hot": (bad(vehicle(), batteryTemp=150.5), "out_of_range", "batteryTemp"),
    "missing field": (bad(vehicle(), kwhDeliveredDc=...), "missing", "kwhDeliveredDc"),
    "naive": (bad(timestamp="2026-01-31T12:00:00"), "naive_timestamp", "timestamp"),
    "unix time": (bad(timestamp=1_769_860_800), "wrong_type", "timestamp"),
    "no such day": (bad(timestamp="2026-02-30T12:00:00Z"), "wrong_type", "timestamp"),
    "far future": (bad(timestamp="2999-01-01T00:00:00Z"), "future_timestamp", "timestamp"),
    "end of time": (bad(timestamp="9999-12-31T23:59:59.999999-23:59"), "future_timestamp", "timestamp"),
    "beginning of time": (bad(timestamp="0001-01-01T00:00:00+23:59"), "too_old", "timestamp"),
    "empty id": (bad(meterId=""), "bad_id", "meterId"),
    "65 characters": (bad(meterId="x" * 65), "bad_id", "meterId"),
    "NUL in an id": (bad(meterId="m\0"), "bad_id", "meterId"),
    "line end in an id": (bad(vehicle(), vehicleId="v-1\n"), "bad_id", "vehicleId"),
    "slash in an id": (bad(vehicle(), vehicleId="v/1"), "bad_id", "vehicleId"),
    "letters beyond ASCII": (bad(meterId="zähler"), "bad_id", "meterId"),
    "SQL": (bad(meterId="x'; drop table meter_reading; --"), "bad_id", "meterId"),
    "number as an id": (bad(meterId=5), "wrong_type", "meterId"),
}


@pytest.mark.parametrize("name", READINGS)
async def test_bad_reading(client: httpx.AsyncClient, owner: Owner, name: str) -> None:
    """A reading that cannot be taken is a 400 that names the field, and a dead letter with its bytes."""
    content, code, field = READINGS[name]
    [before] = await rows(owner, "select coalesce(max(dead_letter_id), 0) as last from dead_letter")
    body = problem(await client.post("/v1/telemetry", content=content, headers=JSON), 400, code)
    assert body.get("field") == field
    letters = await rows(
        owner,
        "select code, field, origin, raw, raw_size, message from dead_letter "  # noqa: S608 - a number of ours
        f"where dead_letter_id > {before['last']}",
    )
    [letter] = letters
    assert letter["raw"] == (content if name != "array of arrays" else content[1:-1])
    assert letter["raw_size"] == len(letter["raw"])
    assert (letter["code"] == code) == (code != "all_refused")
    assert (letter["field"], letter["origin"]) == (field, "http:/v1/telemetry")
    # In company it hides nothing: the good one is stored.
    if code not in {"empty_body", "malformed_json", "empty_batch", "too_deep", "all_refused"}:
        good = msgspec.json.encode(vehicle("v-good", next(_MINUTES) / 60))
        response = await client.post(
            "/v1/telemetry", content=b"[" + content + b"," + good + b"]", headers=JSON
        )
        assert (response.status_code, response.json()["accepted"]) == (200, 1)
        assert [refused["index"] for refused in response.json()["rejected"]] == [0]
    good = msgspec.json.encode(meter("m-good", next(_MINUTES) / 60))
    assert (await client.post("/v1/telemetry", content=good, headers=JSON)).status_code == 201


# What arrives elsewhere: method, address, headers, body, status, code, field.
PACKED: Final = JSON | {"content-encoding": "gzip"}
BATCH: Final = "/v1/ingestion/meter/batch"
SESSION: Final = {"vehicleId": "v-1", "meterId": "m-1", "startedAt": "2026-01-31T12:00:00Z"}
REQUESTS: Final[dict[str, tuple[str, str, dict[str, str], bytes, int, str, str | None]]] = {
    "text": ("POST", "/v1/telemetry", {"content-type": "text/csv"}, GOOD, 415, "unsupported_media_type",
             "content-type"),
    "form": ("POST", "/v1/ingest/meter", {"content-type": "multipart/form-data; boundary=x"}, GOOD, 415,
             "unsupported_media_type", "content-type"),
    "no content type at all": ("POST", "/v1/ingest/meter", {"content-type": " "}, GOOD, 415,
                               "unsupported_media_type", "content-type"),
    "latin-1": ("POST", "/v1/ingest/meter", {"content-type": "application/json; charset=latin-1"}, GOOD, 415,
                "unsupported_media_type", "content-type"),
    "brotli": ("POST", "/v1/telemetry", JSON | {"content-encoding": "br"}, GOOD, 415, "unsupported_encoding",
               "content-encoding"),
    "no gzip": ("POST", "/v1/telemetry", PACKED, GOOD, 400, "bad_gzip", "content-encoding"),
    "gzip cut off": ("POST", "/v1/telemetry", PACKED, gzip.compress(GOOD)[:-3], 400, "bad_gzip",
                     "content-encoding"),
    "packed nothing": ("POST", "/v1/telemetry", PACKED, b"", 400, "empty_body", None),
    "too many bytes": ("POST", "/v1/telemetry", JSON, b" " * 250_001, 413, "too_large", None),
    "too many bytes unpacked": ("POST", "/v1/telemetry", PACKED, gzip.compress(b" " * 400_001), 413,
                                "too_large", None),
    "a bomb": ("POST", "/v1/telemetry", PACKED, gzip.compress(bytes(100_000_000), 1)[:250_000], 413,
               "too_large", None),
    "too many readings": ("POST", BATCH, JSON, b'{"readings": [' + b",".join([GOOD] * 51) + b"]}", 413,
                          "too_many_readings", None),
    "too many lines": ("POST", "/v1/telemetry", NDJSON, b"{}\n" * 51, 413, "too_many_readings", None),
    "bad lines": ("POST", "/v1/telemetry", NDJSON, b"{\n[]\nnull\n", 400, "all_refused", None),
    "blank lines": ("POST", "/v1/telemetry", NDJSON, b"\n\r\n\n", 400, "empty_body", None),
    "one to a batch": ("POST", BATCH, JSON, GOOD, 400, "wrong_shape", "readings"),
    "lines to a batch": ("POST", BATCH, NDJSON, GOOD, 400, "wrong_shape", "readings"),
    "many to one": ("POST", "/v1/ingest/meter", JSON, b"[" + GOOD + b"]", 400, "wrong_shape", None),
    "other kind": ("POST", "/v1/ingest/vehicle", JSON, GOOD, 400, "missing", "vehicleId"),
    "atomic is no flag": ("POST", "/v1/telemetry?atomic=yes", JSON, GOOD, 400, "bad_parameter", "atomic"),
    "atomic empty": ("POST", f"{BATCH}?atomic=", JSON, GOOD, 400, "bad_parameter", "atomic"),
    "unknown route": ("GET", "/v1/nothing", {}, b"", 404, "not_found", None),
    "unknown version": ("POST", "/v2/telemetry", JSON, GOOD, 404, "not_found", None),
    "slash at the end of nothing": ("GET", "/v1/ingest/meter/m-1/", {}, b"", 404, "not_found", None),
    "up and out": ("GET", "/api/assets/%2e%2e/%2e%2e/pyproject.toml", {}, b"", 404, "not_found", None),
    "wrong method": ("PUT", "/v1/telemetry", JSON, GOOD, 405, "method_not_allowed", None),
    "GET of a POST": ("GET", "/v1/telemetry", {}, b"", 405, "method_not_allowed", None),
    "POST of a GET": ("POST", "/v1/analytics/stats", JSON, b"{}", 405, "method_not_allowed", None),
    "DELETE": ("DELETE", "/v1/sessions", {}, b"", 405, "method_not_allowed", None),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
async def test_bad_request(client: httpx.AsyncClient, name: str) -> None:
    """A request that cannot be served is refused with the status of its mistake."""
    method, address, headers, content, status, code, field = REQUESTS[name]
    body = problem(await client.request(method, address, content=content, headers=headers), status, code)
    assert body.get("field") == field


# Ids and parameters of GET: address, status, field.
DAY: Final = "2026-01-31T00:00:00Z"
QUERIES: Final[dict[str, tuple[str, int, str | None]]] = {
    **{
        f"{kind} {what}": (f"/v1/ingest/{kind}/{quote(device, safe='')}/current", status, field)
        for kind in ("meter", "vehicle")
        for what, device, status, field in [
            ("never seen", "nobody", 404, None),
            ("65 characters", "x" * 65, 400, f"{kind}Id"),
            ("NUL", "a\0b", 400, f"{kind}Id"),
            ("blank", " ", 400, f"{kind}Id"),
            ("slash", "a/b", 404, None),
            ("escaped escape", "a%2Fb", 400, f"{kind}Id"),
            ("line end", "m-1\n", 400, f"{kind}Id"),
            ("beyond ASCII", "é", 400, f"{kind}Id"),
            ("a quote", "'", 400, f"{kind}Id"),
        ]
    },
    "not UTF-8": ("/v1/ingest/meter/%ff/current", 400, "meterId"),
    "dots": ("/v1/analytics/performance/%2e%2e%2f", 404, None),
    "unknown vehicle": ("/v1/analytics/performance/nobody", 404, None),
    "bad vehicle": ("/v1/analytics/performance/a%20b", 400, "vehicleId"),
    "naive": ("/v1/analytics/performance/v-1?from=2026-01-31T00:00:00", 400, "from"),
    "no time": ("/v1/analytics/performance/v-1?to=yesterday", 400, "to"),
    "empty time": ("/v1/analytics/performance/v-1?from=", 400, "from"),
    "unix time": ("/v1/analytics/performance/v-1?from=1769860800", 400, "from"),
    "NUL in a time": ("/v1/analytics/performance/v-1?from=%00", 400, "from"),
    "backwards": (f"/v1/analytics/performance/v-1?from={DAY}&to=2026-01-30T00:00:00Z", 400, "from"),
    "before year 1": ("/v1/analytics/performance/v-1?from=0001-01-01T00:00:00%2B01:00", 400, "from"),
    "after year 9999": ("/v1/analytics/performance/v-1?to=9999-12-31T23:59:59-01:00", 400, "to"),
    "fleet backwards": (f"/v1/analytics/fleet?from={DAY}&to=2026-01-30T00:00:00Z", 400, "from"),
    "fleet limit": ("/v1/analytics/fleet?limit=0", 400, "limit"),
    "fleet empty limit": ("/v1/analytics/fleet?limit=", 400, "limit"),
    "limit 0": ("/v1/analytics/meters/states?limit=0", 400, "limit"),
    "limit too high": ("/v1/analytics/vehicles/states?limit=10001", 400, "limit"),
    "limit a fraction": ("/v1/analytics/meters/states?limit=1.5", 400, "limit"),
    "limit NaN": ("/v1/analytics/meters/states?limit=nan", 400, "limit"),
    "after a bad id": ("/v1/analytics/meters/states?after=a%00", 400, "after"),
    "since naive": ("/v1/analytics/meters/states?since=2026-01-31", 400, "since"),
    "before nothing": ("/v1/analytics/vehicles/states?before=", 400, "before"),
    "soc": ("/v1/analytics/vehicles/states?socBelow=101", 400, "socBelow"),
    "sessions limit": ("/v1/sessions?limit=1001", 400, "limit"),
    "sessions open": ("/v1/sessions?open=maybe", 400, "open"),
    "sessions of a bad id": ("/v1/sessions?meterId=a%20b", 400, "meterId"),
    "sessions after nobody": ("/v1/sessions?after=nobody", 404, None),
    "sessions from a naive time": ("/v1/sessions?from=2026-01-31T00:00:00", 400, "from"),
    "sessions backwards": (f"/v1/sessions?from={DAY}&to=2026-01-30T00:00:00Z", 400, "from"),
}


@pytest.mark.parametrize("name", QUERIES)
async def test_bad_query(client: httpx.AsyncClient, name: str) -> None:
    """An id that no device can have is a 400, one that none has a 404; a bad parameter is named."""
    address, status, field = QUERIES[name]
    body = problem(await client.get(address), status)
    assert body.get("field") == field


@pytest.mark.parametrize(
    "query",
    [
        "from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59.999999Z",
        "to=0001-01-01T00:00:00Z",
        "from=9999-12-31T23:59:59Z",
        f"from={DAY}&to={DAY}",
        "from=2026-01-31T00:00:00+05:30",
        "unknown=1",
    ],
)
async def test_windows_that_are_odd_and_fine(client: httpx.AsyncClient, query: str) -> None:
    """The whole calendar, an empty window, a plus sign that was not escaped: each has an answer."""
    await client.post("/v1/telemetry", content=msgspec.json.encode(vehicle("v-odd")), headers=JSON)
    for path in ("/v1/analytics/performance/v-odd", "/v1/analytics/fleet", "/v1/sessions"):
        response = await client.get(f"{path}?{query}")
        assert response.status_code == 200, (path, response.text)


# Bodies of POST /v1/sessions; the field to blame.
SESSIONS: Final[dict[str, tuple[dict[str, Any] | bytes, str | None]]] = {
    "empty": (b"", None),
    "malformed": (b"{", None),
    "not UTF-8": (b'{"vehicleId": "\xff"}', None),
    "an array": (b"[]", None),
    "too deep": (b"[" * DEEP, None),
    "no vehicle": ({"meterId": "m-1", "startedAt": DAY}, "vehicleId"),
    "no start": ({"vehicleId": "v-1", "meterId": "m-1"}, "startedAt"),
    "a number as an id": (SESSION | {"vehicleId": 1}, "vehicleId"),
    "bad id": (SESSION | {"meterId": "a b"}, "meterId"),
    "bad session id": (SESSION | {"sessionId": "x" * 65}, "sessionId"),
    "naive start": (SESSION | {"startedAt": "2026-01-31T12:00:00"}, "startedAt"),
    "end is no time": (SESSION | {"endedAt": "later"}, "endedAt"),
    "end at the start": (SESSION | {"endedAt": SESSION["startedAt"]}, "endedAt"),
    "end before the start": (SESSION | {"endedAt": "2026-01-31T11:59:59Z"}, "endedAt"),
}


@pytest.mark.parametrize("name", SESSIONS)
async def test_bad_session(client: httpx.AsyncClient, name: str) -> None:
    """A session that cannot be taken is a 400 that names the field; none of it is stored."""
    body, field = SESSIONS[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = problem(await client.post("/v1/sessions", content=content, headers=JSON), 400)
    if name != "not UTF-8":
        assert answer.get("field") == field
    response = await client.get("/v1/sessions")
    assert (response.status_code, response.json()["sessions"]) == (200, [])


@pytest.mark.parametrize("session_id", ["x" * 65, "a%20b", "%00", "%C3%A9"])
async def test_bad_session_id_in_the_address(client: httpx.AsyncClient, session_id: str) -> None:
    """The id in the address of PATCH is held to the rules as well."""
    body = problem(await client.patch(f"/v1/sessions/{session_id}", json={"endedAt": DAY}), 400)
    assert body["field"] == "sessionId"

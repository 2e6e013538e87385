"""Reading over HTTP: latest states, figures, probes, the API page."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service import __version__
from service.settings import Settings
from tests.support import servers
from tests.support.http import get, store
from tests.support.strategies import (
    NOW,
    Api,
    Owner,
    altered,
    as_json,
    at,
    meter,
    problem,
    rfc3339,
    rows,
    serving,
    vehicle,
)

pytestmark = pytest.mark.anyio


async def test_current(api: Api) -> None:
    """The newest reading of a device, whatever the order of arrival; 404 for one never seen."""
    await store(api, meter(minute=5, kwh=0.5), vehicle(minute=5, soc=60))
    await store(api, meter(minute=1), vehicle(minute=1))
    told = await get(api, "/v1/ingest/meter/m-1/current")
    updated = datetime.fromisoformat(told.pop("lastUpdated"))
    assert abs(datetime.now(UTC) - updated) < timedelta(minutes=5)
    assert told == as_json(meter(minute=5, kwh=0.5))
    told = await get(api, "/v1/ingest/vehicle/v-1/current")
    del told["lastUpdated"]
    assert told == as_json(vehicle(minute=5, soc=60))
    assert problem(await api.get("/v1/ingest/meter/v-1/current"), 404)["code"] == "unknown_device"
    problem(await api.get("/v1/ingest/vehicle/m-1/current"), 404, "unknown_device")


async def walk(api: Api, kind: str, query: str) -> list[str]:
    """Go through the latest states page by page; give the ids as they came."""
    walked: list[str] = []
    after = ""
    while True:
        page = await get(api, f"/v1/analytics/{kind}s/states?{query}{after}")
        assert page[f"{kind}s"] or not after, "the page before should have said that it was the last one"
        walked += [state[f"{kind}Id"] for state in page[f"{kind}s"]]
        if page["next"] is None:
            return walked
        after = f"&after={page['next']}"


@pytest.mark.parametrize("kind", ["meter", "vehicle"])
async def test_states_page_by_page(api: Api, kind: str) -> None:
    """Pages of any size give each device once, in the order of bytes."""
    ids = ["A", "a", "a-1", "a.1", "a:1", "a_1", "b", "Z", "0", "10", "9"]
    make = meter if kind == "meter" else vehicle
    await store(api, *[make(device_id) for device_id in ids])
    for size in (1, 2, 5, 10, len(ids), 1000):
        assert await walk(api, kind, f"limit={size}") == sorted(ids)
    page = await get(api, f"/v1/analytics/{kind}s/states?after=a&limit=2")
    assert [state[f"{kind}Id"] for state in page[f"{kind}s"]] == ["a-1", "a.1"]
    assert page["next"] == "a.1"


async def test_states_filters(api: Api) -> None:
    """Filters by time (since included, before excluded) and state of charge hold on every page."""
    await store(api, *[vehicle(f"v-{n}", minute=n, soc=n * 10) for n in range(6)])
    await store(api, *[meter(f"m-{n}", minute=n) for n in range(6)])
    for query, expected in {
        f"since={rfc3339(at(2))}": [2, 3, 4, 5],
        f"before={rfc3339(at(2))}": [0, 1],
        f"since={rfc3339(at(1))}&before={rfc3339(at(4))}": [1, 2, 3],
        f"since={rfc3339(at(9))}": [],
    }.items():
        assert await walk(api, "vehicle", f"{query}&limit=2") == [f"v-{n}" for n in expected]
        assert await walk(api, "meter", f"{query}&limit=2") == [f"m-{n}" for n in expected]
    assert await walk(api, "vehicle", "socBelow=30&limit=1") == ["v-0", "v-1", "v-2"]
    assert await walk(api, "vehicle", f"socBelow=40&since={rfc3339(at(1))}") == ["v-1", "v-2", "v-3"]


async def test_stats(api: Api, owner: Owner) -> None:
    """Devices, rows, duplicates, conflicts and dead letters are counted exactly."""
    empty = await get(api, "/v1/analytics/stats")
    assert empty["devices"] == {"meters": 0, "vehicles": 0}
    assert empty["newestReading"] == {"meter": None, "vehicle": None}
    assert empty["deadLetters"] == {"total": 0, "byCode": {}}
    batch = [meter(f"m-{n % 3}", n) for n in range(30)]
    body: list[Any] = [as_json(reading) for reading in [*batch, *batch[:5]]]
    body += [as_json(vehicle())]
    body += [altered(batch[0], voltage=1), altered(vehicle(minute=1), soc=101), 5]
    response = await api.post("/v1/telemetry", json=body)
    assert (response.json()["accepted"], response.json()["duplicates"]) == (31, 5)
    told = await get(api, "/v1/analytics/stats")
    assert told["devices"] == {"meters": 3, "vehicles": 1}
    assert told["newestReading"] == {"meter": rfc3339(at(29)), "vehicle": rfc3339(NOW)}
    assert told["readings"] == {
        "meter": {"accepted": 30, "duplicates": 5, "conflicts": 1},
        "vehicle": {"accepted": 1, "duplicates": 0, "conflicts": 0},
    }
    assert told["deadLetters"] == {
        "total": 3, "byCode": {"conflict": 1, "out_of_range": 1, "wrong_shape": 1},
    }  # fmt: skip
    assert told["ingest"]["readingsPerSecond"] > 0
    source = told["ingest"]["sources"]["http"]
    assert source["lagMaxSeconds"] >= source["lagMeanSeconds"] > 0
    for table in ("meter_reading", "vehicle_reading"):
        assert told["storage"][table]["chunks"] == 1
        assert told["storage"][table]["bytes"] > 0
    [counted] = await rows(owner, "select count(*) as n from meter_reading")
    assert counted["n"] == told["readings"]["meter"]["accepted"]


async def test_health(api: Api) -> None:
    """The probes answer with status, time, name and version; the counters are in Prometheus' format."""
    for address in ("/health", "/health/live", "/health/ready"):
        told = await get(api, address)
        assert told.pop("breaker", None) == ("closed" if address == "/health/ready" else None)
        assert set(told) == {"status", "timestamp", "service", "version"}
        assert (told["status"], told["service"], told["version"]) == ("ok", "fleetwatt", __version__)
        assert abs(datetime.now(UTC) - datetime.fromisoformat(told["timestamp"])) < timedelta(minutes=1)
    await store(api, meter())
    await api.post("/v1/telemetry", json={})
    response = await api.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert re.search(
        r'^fleetwatt_readings_total\{kind="meter",result="stored"\} [1-9]', response.text, re.MULTILINE
    )
    assert re.search(
        r'^fleetwatt_rejected_readings_total\{code="missing",source="http"\} [1-9]',
        response.text,
        re.MULTILINE,
    )
    assert "m-1" not in response.text


async def test_without_a_database() -> None:
    """Without a database the process lives, is not ready, and every read is a 503 with Retry-After."""
    away = Settings(database_url=f"postgresql://fleetwatt_service@127.0.0.1:{servers.free_port()}/fleetwatt")
    async with serving(away) as client:
        addresses = [
            "/health/ready",
            "/v1/ingest/meter/m-1/current",
            "/v1/analytics/performance/v-1",
            "/v1/analytics/fleet",
            "/v1/analytics/stats",
            "/v1/sessions",
        ]
        answers = await asyncio.gather(*(client.get(address) for address in addresses))
        for answer in answers:
            problem(answer, 503, "unavailable")
            assert int(answer.headers.get("retry-after", 0)) > 0
        assert (await client.get("/health")).status_code == 200
        # Whether it asks for a key was never known to this process.
        problem(await client.get("/metrics"), 503, "unavailable")


async def test_the_page_of_the_api() -> None:
    """It loads nothing from any other host: its assets are served by us; and it leads to the dashboard."""
    async with serving(Settings(database_url="postgresql://127.0.0.1:1/none")) as client:
        page = await client.get("/api")
        assert page.headers["content-type"].startswith("text/html")
        assert "//" not in page.text
        linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        local = [address for address in linked if not address.startswith("data:")]
        assert {"/", "/api/openapi.json", "/api/start.js", "/api/assets/page.css"} <= set(local)
        for address in local:
            assert address.startswith("/")
            answer = await client.get(address)
            assert answer.status_code == 200, address
            kinds = {"css": "text/css", "js": "javascript", "json": "json"}
            assert kinds.get(address.rpartition(".")[2], "text/html") in answer.headers["content-type"]
            assert len(answer.content) > 50
        assert (await client.get("/api/assets/page.js")).status_code == 404
        script = await client.get("/api/start.js")
        assert "/api/openapi.json" in script.text
        assert "http" not in script.text

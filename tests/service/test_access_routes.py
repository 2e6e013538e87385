"""What each route needs: written down here a second time, so that no route opens by an oversight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from service.app import create_app
from service.settings import Settings
from service.web.principal import ADMIN, INGEST, PUBLIC, READ, SESSIONS
from tests.support.strategies import problem, serving

pytestmark = pytest.mark.anyio

NOWHERE: Final = Settings(database_url="postgresql://127.0.0.1:1/none")
NEEDS: Final = {
    "GET /": PUBLIC,
    "GET /vehicles/{vehicleId:str}": PUBLIC,
    "GET /meters/{meterId:str}": PUBLIC,
    "GET /alerts": PUBLIC,
    "GET /engine": PUBLIC,
    "GET /sign-in": PUBLIC,
    "GET /assets/{name:str}": PUBLIC,
    "GET /assets/{build:str}/{name:str}": PUBLIC,
    "GET /health": PUBLIC,
    "GET /health/live": PUBLIC,
    "GET /health/ready": PUBLIC,
    "GET /api": PUBLIC,
    "GET /api/{path:str}": PUBLIC,
    "GET /api/openapi.json": PUBLIC,
    "GET /api/start.js": PUBLIC,
    "GET /api/assets/{name:str}": PUBLIC,
    "POST /v1/telemetry": INGEST,
    "POST /v1/ingest/meter": INGEST,
    "POST /v1/ingest/vehicle": INGEST,
    "POST /v1/ingestion/meter": INGEST,
    "POST /v1/ingestion/vehicle": INGEST,
    "POST /v1/ingestion/meter/batch": INGEST,
    "POST /v1/ingestion/vehicle/batch": INGEST,
    "GET /v1/ingest/meter/{meterId:str}/current": READ,
    "GET /v1/ingest/vehicle/{vehicleId:str}/current": READ,
    "GET /v1/analytics/meters/states": READ,
    "GET /v1/analytics/vehicles/states": READ,
    "GET /v1/analytics/performance/{vehicleId:str}": READ,
    "GET /v1/analytics/vehicles/{vehicleId:str}/hourly": READ,
    "GET /v1/analytics/vehicles/{vehicleId:str}/sessions": READ,
    "GET /v1/analytics/meters/{meterId:str}/hourly": READ,
    "GET /v1/analytics/meters/{meterId:str}/sessions": READ,
    "GET /v1/analytics/fleet": READ,
    "GET /v1/analytics/overview": READ,
    "GET /v1/analytics/stats": READ,
    "GET /v1/alerts": READ,
    "GET /v1/stream": READ,
    "GET /v1/sessions": READ,
    "POST /v1/sessions": SESSIONS,
    "GET /v1/sessions/{sessionId:str}": READ,
    "PATCH /v1/sessions/{sessionId:str}": SESSIONS,
    "GET /v1/sessions/{sessionId:str}/changes": READ,
    "GET /v1/vehicles/{vehicleId:str}/meter": READ,
    "PUT /v1/vehicles/{vehicleId:str}/meter": SESSIONS,
    "GET /v1/dead-letters": ADMIN,
    "GET /v1/dead-letters/summary": ADMIN,
    "GET /v1/dead-letters/{letterId:str}": ADMIN,
    "POST /v1/dead-letters/replay": ADMIN,
    "POST /v1/dead-letters/dismiss": ADMIN,
    "POST /v1/sign-in": PUBLIC,
    "POST /v1/sign-out": PUBLIC,
    "GET /v1/me": PUBLIC,
    "GET /metrics": READ,
}


def handlers() -> Iterator[tuple[str, HTTPRouteHandler]]:
    """Give each route of the application, as METHOD /path, with its handler; OPTIONS tells methods only."""
    for route in create_app(NOWHERE).routes:
        assert isinstance(route, HTTPRoute)
        for handler in route.route_handlers:
            for method in handler.http_methods - {"OPTIONS"}:
                yield f"{method} {route.path}", handler


def test_each_route_needs_what_is_written_here() -> None:
    """None more, none less, none that declares nothing; and only the counters do without the database."""
    found = dict(handlers())
    assert {name: handler.opt.get("need") for name, handler in found.items()} == NEEDS
    needing = {name for name, handler in found.items() if handler.opt["need_database"]}
    assert {name for name, need in NEEDS.items() if need != PUBLIC} - needing == {"GET /metrics"}


def test_the_document_tells_which_ask_for_a_key() -> None:
    """Each operation in the document says whether it takes a key, and then 401, 403, 429 and 503 too."""
    document: dict[str, Any] = create_app(NOWHERE).openapi_schema.to_schema()
    schemes = document["components"]["securitySchemes"]
    assert schemes["apiKey"]["scheme"] == "bearer"
    assert (schemes["apiKeyHeader"]["in"], schemes["apiKeyHeader"]["name"]) == ("header", "X-API-Key")
    assert (schemes["signIn"]["in"], schemes["signIn"]["name"]) == ("cookie", "fleetwatt")
    told = {}
    for path, item in document["paths"].items():
        for method, said in item.items():
            told[f"{method.upper()} {path}"] = bool(said.get("security"))
            name = f"{method.upper()} {path.replace('}', ':str}')}"
            cookie: list[Any] = [{"signIn": []}] if NEEDS[name] == READ and method == "get" else []
            assert (said.get("security") or []) in ([], [{"apiKey": []}, {"apiKeyHeader": []}, *cookie, {}])
            if said.get("security"):
                assert {"401", "403", "429", "503"} <= set(said["responses"]), path
    for name, handler in handlers():
        if handler.resolve_include_in_schema():
            plain = name.replace(":str}", "}")
            assert told[plain] == (NEEDS[name] != PUBLIC), name


async def test_a_route_without_a_need_is_closed(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """A handler that forgets to say what it needs answers nobody, also where there are no keys."""

    @get("/forgotten")
    async def forgotten() -> str:
        return "secret"

    monkeypatch.setattr("service.app.apipage.routes", lambda: [forgotten])
    async with serving(settings) as client:
        response = await client.get("/forgotten")
        problem(response, 403, "not_allowed")
        assert "secret" not in response.text

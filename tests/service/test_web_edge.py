"""What holds for every request and answer: hosts, origins, URL length, HEAD, security headers, CORS."""

from __future__ import annotations

from typing import Any, Final, cast

import httpx
import msgspec
import pytest

from service.app import create_app
from service.errors import SettingsError
from service.settings import Settings, load
from tests.support.strategies import as_json, meter, problem, rows, serving

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

# No database: nothing here gets as far as that.
NOWHERE: Final = Settings(database_url="postgresql://127.0.0.1:1/none")
SECURE: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "server": "fleetwatt",
}
SESSION: Final = {"vehicleId": "v-1", "meterId": "m-1", "startedAt": "2026-01-31T12:00:00Z"}


async def test_every_answer_has_security_headers() -> None:
    """Answers, redirects, problems of ours and of the framework's, and refusals at the edge have them all."""
    async with serving(NOWHERE) as client:
        for method, path, status in (
            ("GET", "/health", 200),
            ("GET", "/", 200),
            ("GET", "/api", 200),
            ("GET", "/nowhere", 404),
            ("DELETE", "/health", 405),
            ("OPTIONS", "/health", 204),
            ("POST", "/v1/telemetry", 503),
            ("GET", "/health?x=" + "y" * 9000, 414),
        ):
            response = await client.request(method, path)
            assert response.status_code == status, path
            assert response.headers.items() >= SECURE.items(), path
            caching = "no-cache" if path == "/" else "no-store"
            assert response.headers["cache-control"] == caching, path
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'" in policy, path
            assert "frame-ancestors 'none'" in policy, path
            assert "unsafe" not in policy, path
            assert ("script-src" in policy) == (path in {"/", "/api"}), path
            assert "strict-transport-security" not in response.headers
        asset = await client.get("/api/assets/swagger-ui.css")
        assert asset.headers["cache-control"] == "max-age=86400"


async def test_strict_transport_only_with_tls() -> None:
    """HTTPS says that it is to be used from now on; plain HTTP must not."""
    files = {"http_tls_cert_file": "/c.pem", "http_tls_key_file": "/k.pem"}
    async with serving(NOWHERE, **files) as client:
        response = await client.get("/health")
        assert response.headers["strict-transport-security"].startswith("max-age=")


@pytest.mark.parametrize(
    ("host", "changes", "served"),
    [
        ("localhost", {}, True),
        ("LocalHost:8080", {}, True),
        ("localhost.", {}, True),
        ("127.0.0.1:1", {}, True),
        ("[::1]", {}, True),
        ("[::1]:8080", {}, True),
        ("evil.example", {}, False),
        ("evil.example:8080", {}, False),
        ("localhost.evil.example", {}, False),
        ("127.0.0.1.evil.example", {}, False),
        ("localhost:8080@evil.example", {}, False),
        ("evil.example", {"http_hosts": "fleet.example"}, False),
        ("Fleet.example:443", {"http_hosts": "other.example,fleet.example"}, True),
        ("localhost", {"http_hosts": "fleet.example"}, True),
        ("evil.example", {"http_host": "0.0.0.0"}, True),  # noqa: S104 - keys are asked for there
        ("evil.example", {"http_host": "0.0.0.0", "http_hosts": "fleet.example"}, False),  # noqa: S104
    ],
)
async def test_hosts(host: str, changes: dict[str, Any], *, served: bool) -> None:
    """On loopback only its own names are answered, so that no page's own name leads in; and what was set."""
    async with serving(NOWHERE, **changes) as client:
        for _ in range(2):  # the verdict is remembered
            response = await client.get("/health", headers={"host": host})
            if served:
                assert response.status_code == 200
            else:
                problem(response, 421, "misdirected")


@pytest.mark.parametrize(
    ("headers", "changes", "trusted"),
    [
        ({}, {}, True),
        ({"origin": "http://localhost:8080"}, {}, True),
        ({"origin": "https://evil.example"}, {}, False),
        ({"origin": "null"}, {}, False),
        ({"origin": "http://localhost:9999"}, {}, False),
        ({"origin": "https://a.example", "sec-fetch-site": "same-origin"}, {}, True),
        ({"origin": "https://a.example", "sec-fetch-site": "cross-site"}, {}, False),
        ({"origin": "https://fleet.example"}, {"http_hosts": "fleet.example"}, True),
        ({"origin": "https://dash.example"}, {"http_cors_origins": "https://dash.example"}, True),
        ({"origin": "http://dash.example"}, {"http_cors_origins": "https://dash.example"}, False),
    ],
)
async def test_pages_of_other_origins_change_nothing(
    headers: dict[str, str], changes: dict[str, Any], *, trusted: bool
) -> None:
    """What would change something is refused when it comes from a page of an origin that is not ours."""
    async with serving(NOWHERE, **changes) as client:
        head = {"host": "localhost:8080", **headers}
        response = await client.post("/v1/telemetry", content=b"", headers=head)
        # Without its database it takes nothing; but that far it must have come.
        problem(response, 503 if trusted else 403, "unavailable" if trusted else "cross_origin")
        assert (await client.get("/health", headers=head)).status_code == 200


async def test_session_routes_take_json_only(settings: Settings, owner: Any) -> None:
    """What a page can send without asking (text, a form) is no JSON: 415, and nothing is stored."""
    async with serving(settings) as client:
        for method, path in (
            ("POST", "/v1/sessions"),
            ("PATCH", "/v1/sessions/s-1"),
            ("PUT", "/v1/vehicles/v-1/meter"),
        ):
            for media in ("text/plain", "application/x-www-form-urlencoded", "application/x-ndjson", "*/*"):
                content = msgspec.json.encode(SESSION)
                response = await client.request(
                    method, path, content=content, headers={"content-type": media}
                )
                problem(response, 415, "unsupported_media_type")
        assert await rows(owner, "select * from charging_session") == []
        media = "application/json; charset=utf-8"
        response = await client.post(
            "/v1/sessions", content=msgspec.json.encode(SESSION), headers={"content-type": media}
        )
        assert response.status_code == 201


async def test_head(settings: Settings) -> None:
    """What can be got has a head: the same status and headers, no body; the rest says what it takes."""
    async with serving(settings) as client:
        for path in ("/health", "/v1/sessions", "/api/openapi.json", "/metrics"):
            got, head = await client.get(path), await client.head(path)
            assert head.status_code == got.status_code == 200
            assert head.content == b""
            assert head.headers["content-type"] == got.headers["content-type"]
        problem(await client.get("/v1/telemetry"), 405, "method_not_allowed")
        missing = await client.head("/v1/telemetry")
        assert (missing.status_code, missing.content) == (405, b"")
        for method, status in (("DELETE", 405), ("OPTIONS", 204)):
            told = await client.request(method, "/v1/sessions")
            assert told.status_code == status
            assert set(told.headers["allow"].split(", ")) == {"GET", "HEAD", "POST", "OPTIONS"}
        assert (await client.options("/v1/sessions")).content == b""
        problem(await client.options("/nowhere"), 404)


async def test_long_addresses() -> None:
    """A URL of more than 8 KiB is refused, whether it is its path or its query that is long."""
    async with serving(NOWHERE) as client:
        assert (await client.get("/health?" + "x" * 8000)).status_code == 200
        problem(await client.get("/health?" + "x" * 8192), 414, "url_too_long")
        problem(await client.get("/" + "x" * 8192), 414, "url_too_long")


async def test_nothing_is_kept_of_an_address() -> None:
    """What needs no key is answered without keeping anything for each query string: memory would fill up."""
    app = create_app(NOWHERE)
    transport = httpx.ASGITransport(cast("Any", app))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for path in ("/api/start.js", "/api", "/api/openapi.json", "/api/assets/swagger-ui.css", "/health"):
            for number in range(3):
                assert (await client.get(path, params={"x": number})).status_code == 200, path
    kept: Any = app.stores.get("response_cache")
    assert not kept._store  # noqa: SLF001 - what it holds is the point


async def test_no_cors_unless_set() -> None:
    """Pages of other origins may read nothing, unless their origin is set, exactly."""
    preflight = {
        "origin": "https://dash.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,authorization,x-api-key",
    }
    async with serving(NOWHERE) as client:
        for response in (
            await client.get("/health", headers={"origin": "https://dash.example"}),
            await client.options("/v1/telemetry", headers=preflight),
        ):
            assert not [name for name in response.headers if name.startswith("access-control")]
    async with serving(NOWHERE, http_cors_origins="https://a.example,https://dash.example") as client:
        response = await client.options("/v1/telemetry", headers=preflight)
        assert response.status_code == 204
        assert response.headers["access-control-allow-origin"] == "https://dash.example"
        allowed = response.headers["access-control-allow-headers"].lower()
        assert "authorization" in allowed
        assert "x-api-key" in allowed
        response = await client.post("/v1/telemetry", headers={"origin": "https://dash.example"})
        assert response.headers["access-control-allow-origin"] == "https://dash.example"
        assert "access-control-allow-credentials" not in response.headers
        for origin in ("https://dash.example.evil.example", "https://evil.example", "null"):
            response = await client.get("/health", headers={"origin": origin})
            assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_CORS_ORIGINS", "*"),
        ("HTTP_CORS_ORIGINS", "dash.example"),
        ("HTTP_CORS_ORIGINS", "https://dash.example/"),
        ("HTTP_CORS_ORIGINS", "https://a.example, https://b.example"),
        ("HTTP_HOSTS", "*"),
        ("HTTP_HOSTS", "fleet.example:443"),
        ("HTTP_HOSTS", "https://fleet.example"),
    ],
)
def test_lists_that_could_not_work_are_refused(name: str, value: str) -> None:
    """No wildcard, and nothing that would never match: the setting is named."""
    with pytest.raises(SettingsError, match="FLEETWATT_" + name):
        load({"FLEETWATT_" + name: value})


async def test_telemetry_goes_on(settings: Settings) -> None:
    """A device that sends no content type, no Host that a browser would, and nothing else is served."""
    async with serving(settings) as client:
        content = msgspec.json.encode(as_json(meter()))
        assert (await client.post("/v1/telemetry", content=content)).status_code == 201

"""The OpenAPI document: well formed, complete, and true of what the service answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pytest

from service import __version__
from service.app import create_app
from service.ingest.decode import decode
from service.readings import TimeRule
from service.settings import Settings
from service.web.problems import CONTENT_TYPE
from tests.support.strategies import serving

pytestmark = pytest.mark.anyio

APP: Final = create_app(Settings(database_url="postgresql://127.0.0.1:1/none"))
DOCUMENT: Final[dict[str, Any]] = APP.openapi_schema.to_schema()
METHODS: Final = {"get", "put", "post", "delete", "patch", "head", "options", "trace"}
INGEST: Final = {
    "/v1/telemetry": {"200", "201"},
    "/v1/ingest/meter": {"201"},
    "/v1/ingest/vehicle": {"201"},
    "/v1/ingestion/meter": {"201"},
    "/v1/ingestion/vehicle": {"201"},
    "/v1/ingestion/meter/batch": {"200"},
    "/v1/ingestion/vehicle/batch": {"200"},
}
WITHOUT_BODY: Final = {"/v1/sign-out"}
READ: Final = {
    "/v1/ingest/meter/{meterId}/current",
    "/v1/ingest/vehicle/{vehicleId}/current",
    "/v1/analytics/performance/{vehicleId}",
    "/v1/analytics/vehicles/states",
    "/v1/analytics/meters/states",
    "/v1/analytics/fleet",
    "/v1/analytics/stats",
    "/v1/sessions",
    "/health",
    "/health/live",
    "/health/ready",
    "/metrics",
}


class Operation(NamedTuple):
    """One operation of the document."""

    method: str
    path: str
    said: dict[str, Any]

    @property
    def asks_the_database(self) -> bool:
        """Tell whether it cannot be answered without the database."""
        return self.path not in {"/health", "/health/live", "/metrics"}

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """List its parameters."""
        listed: list[dict[str, Any]] = self.said.get("parameters", [])
        return listed


OPERATIONS: Final = [
    Operation(method, path, said)
    for path, item in sorted(DOCUMENT["paths"].items())
    for method, said in sorted(item.items())
    if method in METHODS
]
each = pytest.mark.parametrize("operation", OPERATIONS, ids=[f"{o.method} {o.path}" for o in OPERATIONS])


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Give every object in the document."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from parts(inner)


def test_head_of_the_document() -> None:
    """Version, name and tags stand at the head, and no server but the one that serves it."""
    assert DOCUMENT["openapi"].startswith("3.1")
    assert (DOCUMENT["info"]["title"], DOCUMENT["info"]["version"]) == ("fleetwatt", __version__)
    assert [server["url"] for server in DOCUMENT["servers"]] == ["/"]
    assert all(tag["name"] and tag["description"] for tag in DOCUMENT["tags"])


def test_references_and_types() -> None:
    """Every reference leads somewhere, and every type is one that JSON Schema knows."""
    known = {"string", "number", "integer", "boolean", "object", "array", "null"}
    for part in parts(DOCUMENT):
        if isinstance(reference := part.get("$ref"), str):
            place: Any = DOCUMENT
            for step in reference.removeprefix("#/").split("/"):
                place = place[step]
        # What has a scheme or a place is no schema: it says how a key is sent.
        if isinstance(named := part.get("type"), str) and not {"scheme", "in"} & set(part):
            assert named in known or named.startswith("urn:"), part


def test_every_route_of_the_contract_is_in_it() -> None:
    """The ingest routes, the read routes, sessions and probes; pages and assets are not."""
    found = {(o.method, o.path) for o in OPERATIONS}
    assert {("post", path) for path in INGEST} <= found
    assert {("get", path) for path in READ} <= found
    assert {("post", "/v1/sessions"), ("patch", "/v1/sessions/{sessionId}")} <= found
    assert not [path for _, path in found if path.startswith("/api") or path == "/"]
    for route in APP.routes:
        path = re.sub(r"_([a-z])", lambda match: match[1].upper(), re.sub(r":\w+\}", "}", route.path))
        if path.startswith("/v1"):
            assert path in DOCUMENT["paths"], path


@each
def test_operation_is_described(operation: Operation) -> None:
    """Summary, a tag of the head, and each placeholder of the path as a parameter."""
    said = operation.said
    assert 5 < len(said["summary"]) < 80
    assert set(said["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}
    in_path = [parameter["name"] for parameter in operation.parameters if parameter["in"] == "path"]
    assert in_path == re.findall(r"\{(\w+)\}", operation.path)
    for parameter in operation.parameters:
        assert parameter["in"] in {"path", "query"}
        assert parameter["required"] == (parameter["in"] == "path")
        assert parameter["schema"]
    for answer in said["responses"].values():
        assert answer["description"]
    takes_a_body = operation.method in {"post", "patch", "put"} and operation.path not in WITHOUT_BODY
    assert takes_a_body == ("requestBody" in said)


def test_operations_are_explained() -> None:
    """What the handlers' docstrings explain (units, edges, what null means) reaches the reader."""
    assert [operation.path for operation in OPERATIONS if not operation.said.get("description")] == []


def test_operation_ids_are_unique() -> None:
    """No two operations share an id: generated clients name their functions by it."""
    ids = [operation.said["operationId"] for operation in OPERATIONS]
    assert len(set(ids)) == len(ids)


@each
def test_errors_are_told(operation: Operation) -> None:
    """Each operation lists the errors that it can answer with."""
    expected = set()
    if operation.asks_the_database:
        expected.add("503")
    if operation.parameters or "requestBody" in operation.said:
        expected.add("400")
    if "{" in operation.path:
        expected.add("404")
    if operation.path in INGEST:
        expected |= {"413", "415"}
    told = {status for status in operation.said["responses"] if int(status) >= 400}
    assert expected <= told


@each
def test_errors_are_problem_details(operation: Operation) -> None:
    """Whatever error is listed has the one shape that errors have (RFC 9457)."""
    for status, answer in operation.said["responses"].items():
        if int(status) >= 400:
            assert list(answer["content"]) == [CONTENT_TYPE], status
            schema = answer["content"][CONTENT_TYPE]["schema"]
            assert {"type", "title", "status", "detail", "code"} <= set(schema["properties"])


@each
def test_answers_have_a_schema(operation: Operation) -> None:
    """What a JSON answer holds is said field by field."""
    for status, answer in operation.said["responses"].items():
        for media_type, content in answer.get("content", {}).items():
            if int(status) < 300 and media_type == "application/json":
                schema = content["schema"]
                if "$ref" in schema:
                    schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
                assert schema.get("properties"), status


def test_ingest_bodies() -> None:
    """Each ingest route tells its 2xx answers, its body with the rules of a reading, and good examples."""
    for path, answers in INGEST.items():
        said = DOCUMENT["paths"][path]["post"]
        assert {status for status in said["responses"] if status.startswith("2")} == answers
        content = said["requestBody"]["content"]
        assert said["requestBody"]["required"]
        assert ("application/x-ndjson" in content) == (path == "/v1/telemetry")
        for title, example in content["application/json"]["examples"].items():
            body = json.dumps(example["value"]).encode()
            result = decode(body, TimeRule())
            assert result.readings, path
            assert len(result.rejections) == ("refused" in title), path
    body = DOCUMENT["paths"]["/v1/ingest/meter"]["post"]["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    assert schema["required"] == ["meterId", "timestamp", "kwhConsumedAc", "voltage"]
    voltage, device_id = schema["properties"]["voltage"], schema["properties"]["meterId"]
    assert (voltage["type"], voltage["minimum"], voltage["maximum"]) == ("number", 0, 1000)
    assert (device_id["minLength"], device_id["maxLength"]) == (1, 64)


async def test_the_document_is_served() -> None:
    """/api/openapi.json is the document, whatever the database does."""
    async with serving(Settings(database_url="postgresql://127.0.0.1:1/none")) as client:
        response = await client.get("/api/openapi.json")
        assert response.status_code == 200
        assert set(response.json()["paths"]) == set(DOCUMENT["paths"])

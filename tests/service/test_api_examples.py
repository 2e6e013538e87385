"""Each operation's examples work when tried, on data such as the demo's, and answers are as described."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from service.app import create_app
from service.settings import Settings
from service.simulator.fleet import Fleet
from service.simulator.seed import seed
from service.web import apiexamples
from tests.support.api_document import Operation, Try, operations, times
from tests.support.serving import Served, make_key, served
from tests.support.strategies import as_json

pytestmark = pytest.mark.anyio

# Where a key is asked for in the body, an example cannot hold a good one.
OWN_KEY: Final = "/v1/sign-in"
# Answers that do not end: what is read of them is their first event.
ENDLESS: Final = {"/v1/stream"}


class Running(NamedTuple):
    """A service with a day of a small fleet's readings, and its document."""

    service: Served
    document: dict[str, Any]
    key: str

    @property
    def operations(self) -> list[Operation]:
        """List the operations: what stores goes first, so that what is read is there."""
        return sorted(
            operations(self.document),
            key=lambda operation: (operation.method == "get", operation.method != "post", operation.path),
        )


@pytest.fixture
async def running(settings: Settings, tmp_path: Path) -> AsyncIterator[Running]:
    """Run a service on the data of a demo: a fleet's sessions, and what it sent."""
    now = datetime.now(UTC)
    fleet = Fleet(3, 3, seed=1)
    await seed(settings.database_url, fleet, now - timedelta(days=1), now + timedelta(days=2))
    key = await make_key(settings)
    async with served(settings, tmp_path) as service:
        service.client.headers["authorization"] = f"Bearer {key}"
        for readings in fleet.readings(now - timedelta(days=1), now, 1200):
            sent = await service.client.post("/v1/telemetry", json=[as_json(each) for each in readings])
            assert sent.json()["rejected"] == []
        document = (await service.client.get("/api/openapi.json")).json()
        yield Running(service, document, key)


async def tried(running: Running, operation: Operation, request: Try) -> None:
    """Send a request; its answer is a success and as described."""
    client = running.service.client
    if operation.path == OWN_KEY:
        request = request._replace(content=b'{"key": "%s"}' % running.key.encode())
    if operation.path in ENDLESS:
        async with client.stream(request.method, request.path, params=request.params) as response:
            assert response.status_code == 200, request.name
            first = await anext(part async for part in response.aiter_lines() if part)
            assert first.startswith(("event:", "retry:")), first
        return
    response = await request.send(client)
    assert response.is_success, (request.name, response.text)
    operation.check(response)
    assert "Deprecation" not in response.headers


async def test_every_example_works_when_tried(running: Running) -> None:
    """On the page's own order of things, and once more: nothing that was tried stands in its own way."""
    names = []
    for _ in range(2):
        for operation in running.operations:
            for request in operation.tries():
                await tried(running, operation, request)
                names.append(request.name)
    assert len(names) > 2 * len(running.operations)
    assert "request_failed" not in running.service.log


async def test_what_is_read_is_the_demos(running: Running) -> None:
    """The examples of what is read tell of a vehicle that has energy, not of nothing."""
    for operation in running.operations:
        if operation.path in {"/v1/analytics/performance/{vehicleId}", "/v1/analytics/vehicles/states"}:
            [request] = operation.tries()
            answer = (await request.send(running.service.client)).json()
            assert answer.get("readingsCount", {"vehicle": 1})["vehicle"] > 0
            assert answer.get("vehicles") != []


async def test_each_answer_and_problem_has_an_example(running: Running) -> None:
    """Of the shape that is described, so what the page shows is what comes."""
    for operation in running.operations:
        for status, told in operation.said["responses"].items():
            for media_type, media in told.get("content", {}).items():
                if not media_type.endswith("json"):
                    continue
                operation.valid(media["schema"], media["example"])
                if media_type == "application/problem+json":
                    assert str(media["example"]["status"]) == status


async def test_each_parameter_is_explained(running: Running) -> None:
    """What it is, what it looks like; paths have an example, and examples fit their schemas."""
    for operation in running.operations:
        for parameter in operation.said.get("parameters", []):
            named = (operation.name, parameter["name"])
            assert len(parameter["description"]) > 5, named
            assert ("example" in parameter) >= (parameter["in"] == "path"), named
            if "example" in parameter:
                operation.valid(parameter["schema"], parameter["example"])


async def test_bodies_fit_their_schemas(running: Running) -> None:
    """Each example of a body is one that its schema allows, unless it says that it is refused."""
    for operation in running.operations:
        for media_type, media in operation.media.items():
            for title, example in media.get("examples", {}).items():
                if media_type == "application/json" and "refused" not in title:
                    operation.valid(media["schema"], example["value"])


async def test_times_are_of_this_hour(running: Running) -> None:
    """What is sent is not older than a day: a service that keeps raw readings for one takes it, too."""
    now = datetime.now(UTC)
    for operation in running.operations:
        for request in operation.tries():
            for text in times((request.content or b"").decode()):
                age = now - datetime.fromisoformat(text)
                assert timedelta(minutes=-5) <= age < timedelta(days=1), (request.name, text)
    found = list(times(running.document))
    assert len(found) > 50
    for text in found:
        assert abs(now - datetime.fromisoformat(text)) < timedelta(days=2), text


async def test_tried_again_in_later_hours(running: Running) -> None:
    """What was tried an hour or a day ago is not in the way: a reading, a session, an assignment."""
    raw = create_app(
        settings=Settings(database_url="postgresql://127.0.0.1:1/none")
    ).openapi_schema.to_schema()
    encoded = msgspec.json.encode(apiexamples.filled(raw))
    for hours in (25, 2, 1, 0):
        then = datetime.now(UTC) - timedelta(hours=hours)
        earlier = running._replace(document=msgspec.json.decode(apiexamples.fresh(encoded, then)))
        for operation in earlier.operations:
            for request in operation.tries() if operation.media else ():
                await tried(earlier, operation, request)

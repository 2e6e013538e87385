"""Every error that can be provoked is in the document, and every error in the document can be provoked."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest

from service.settings import Settings
from tests.support.api_document import Operation, Try, operations
from tests.support.keys import bearer, make_key
from tests.support.serving import Served, served
from tests.support.strategies import serving

pytestmark = pytest.mark.anyio

_BODY_MAX: Final = 4096
SIGN_IN: Final = "/v1/sign-in"
_UNKNOWN_IDS: Final = {
    "vehicleId": "nobody",
    "meterId": "nothing",
    "sessionId": "never",
    "letterId": "999999",
}


class Asked(NamedTuple):
    """One operation, what it takes to succeed, and where to ask it."""

    service: Served
    operation: Operation
    good: Try
    keys: dict[str, dict[str, Any]]

    async def send(self, headers: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
        """Send the good request with something changed; an answer that does not end is not read."""
        request = self.good._replace(**changes)
        sent = {**self.keys["admin"], **request.headers, **(headers or {})}
        return await ask(self.service.client, request, sent)

    @property
    def bodied(self) -> bool:
        """Tell whether it takes a body."""
        return self.good.content is not None


Provocation = Callable[[Asked], Awaitable[list[httpx.Response]]]


async def ask(client: httpx.AsyncClient, request: Try, headers: dict[str, str]) -> httpx.Response:
    """Send a request; read the answer if it is an error."""
    async with client.stream(
        request.method, request.path, params=request.params, content=request.content, headers=headers
    ) as response:
        if response.is_error:
            await response.aread()
        return response


async def of_edge(asked: Asked) -> list[httpx.Response]:
    """Ask a host that is not ours, on a long address, from a page of others."""
    return [
        await asked.send({"host": "evil.example"}),
        await asked.send(params={"long": "x" * 8200}),
        await asked.send({"origin": "https://evil.example"}),
    ]


async def of_keys(asked: Asked) -> list[httpx.Response]:
    """Show no key, a wrong one, one that may do something else, and one in the body that may."""
    wrong = bearer("fw_abcdefghijkl_" + "x" * 43)
    without = asked._replace(keys={"admin": {}})
    answers = [await without.send(), await without.send(wrong)]
    for scope in ("ingest", "read"):
        answers.append(await without.send(asked.keys[scope]))
        shown = asked.keys[scope]["authorization"].removeprefix("Bearer ")
        if asked.operation.path == SIGN_IN:
            answers.append(await without.send(content=json.dumps({"key": shown}).encode()))
    return answers


async def of_bodies(asked: Asked) -> list[httpx.Response]:
    """Send half a body, one of another type, one that is too large, and one that does not come."""
    if not asked.bodied:
        return []
    head = f"{asked.good.method.upper()} {asked.good.path} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Authorization: {asked.keys['admin']['authorization']}\r\n"
    late = await asked.service.say(f"{head}Content-Length: 9\r\n\r\n[".encode())
    status, _, rest = late.removeprefix(b"HTTP/1.1 ").partition(b" ")
    fields, _, body = rest.partition(b"\r\n\r\n")
    told = [line.split(b": ", 1) for line in fields.split(b"\r\n")[1:]]
    return [
        await asked.send(content=b"{"),
        await asked.send({"content-type": "text/plain"}),
        await asked.send(content=b" " * (_BODY_MAX + 1)),
        httpx.Response(int(status), headers=[(name, value) for name, value in told], content=body),
    ]


async def of_parameters(asked: Asked) -> list[httpx.Response]:
    """Give ids that are none or unknown, and each parameter of the query a value that is none."""
    answers = []
    unknown, bad = asked.operation.path, asked.operation.path
    for name, value in _UNKNOWN_IDS.items():
        unknown, bad = unknown.replace(f"{{{name}}}", value), bad.replace(f"{{{name}}}", "%20")
    if unknown != bad:
        answers += [await asked.send(path=path) for path in (unknown, bad)]
    for parameter in asked.operation.said.get("parameters", []):
        if parameter["in"] == "query":
            answers.append(await asked.send(params={parameter["name"]: " "}))
            answers.append(await asked.send(params={parameter["name"]: "999999"}))
    return answers


async def of_sessions(asked: Asked) -> list[httpx.Response]:
    """Change sessions and assignments into what is in the way of others; take the meter of nobody."""
    busy = {"vehicleId": "v-2", "meterId": "m-busy", "startedAt": "2026-01-01T00:00:00Z"}
    mine = {**busy, "sessionId": "mine", "meterId": "m-free", "endedAt": "2026-01-02T00:00:00Z"}
    clashes: dict[str, dict[str, Any]] = {
        "/v1/sessions": {**busy, "vehicleId": "v-3"},
        "/v1/sessions/{sessionId}": {"meterId": "m-busy"},
        "/v1/vehicles/{vehicleId}/meter": {"meterId": "m-busy", "since": "2026-01-01T12:00:00Z"},
    }
    clash = clashes.get(asked.operation.path)
    if clash is None or not asked.bodied:
        return []
    for session in (busy, mine):
        stored = await asked.service.client.post("/v1/sessions", json=session, headers=asked.keys["admin"])
        assert stored.is_success
    path = asked.operation.path.replace("{sessionId}", "mine").replace("{vehicleId}", "nobody")
    return [
        await asked.send(path=path, content=json.dumps(body).encode()) for body in (clash, {"meterId": None})
    ]


PROVOCATIONS: Final[list[Provocation]] = [of_edge, of_keys, of_bodies, of_parameters, of_sessions]


class Books:
    """Which errors each operation has answered with; each is held against the document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.operations = operations(document)
        self._seen: dict[str, set[str]] = {operation.name: set() for operation in self.operations}

    def note(self, operation: Operation, answers: list[httpx.Response]) -> None:
        """Check the errors among some answers."""
        for answer in answers:
            if answer.is_error:
                operation.check(answer)
                self._seen[operation.name].add(str(answer.status_code))

    def missing(self) -> dict[str, set[str]]:
        """Give the errors that are described and were not seen."""
        told = {
            operation.name: {status for status in operation.said["responses"] if int(status) >= 400}
            for operation in self.operations
        }
        return {name: told[name] - seen for name, seen in self._seen.items() if told[name] != seen}


async def test_every_status_is_described_and_occurs(settings: Settings, tmp_path: Path) -> None:
    """Each operation is asked in every wrong way that there is, by a service that is well, away or busy."""
    keys = {scope: bearer(make_key(settings, scope)) for scope in ("admin", "ingest", "read")}
    async with served(settings, tmp_path, HTTP_MAX_BODY_BYTES=_BODY_MAX, HTTP_BODY_TIMEOUT_S=0.2) as service:
        books = Books((await service.client.get("/api/openapi.json")).json())
        for number, operation in enumerate(books.operations):
            good = next(operation.tries())
            # Each from an address of its own: only so many bad keys a minute are answered from one.
            own = httpx.AsyncHTTPTransport(local_address=f"127.0.1.{number + 1}")
            async with httpx.AsyncClient(base_url=service.client.base_url, transport=own) as client:
                asked = Asked(service._replace(client=client), operation, good, keys)
                for provocation in PROVOCATIONS:
                    books.note(operation, await provocation(asked))
        key = keys["read"]["authorization"].removeprefix("Bearer ")
        signed_in = await service.client.post(SIGN_IN, json={"key": key})
        cookie = {"cookie": signed_in.headers["set-cookie"].partition(";")[0]}
        assert "request_failed" not in service.log
    await while_away(books, [keys["admin"], cookie])
    await past_the_rate(settings, books, keys)
    assert books.missing() == {}


async def while_away(books: Books, credentials: list[dict[str, Any]]) -> None:
    """Ask a service whose database does not answer."""
    async with serving(Settings(database_url="postgresql://127.0.0.1:1/none")) as client:
        for operation in books.operations:
            request = next(operation.tries())
            for shown in credentials:
                books.note(operation, [await ask(client, request, {**request.headers, **shown})])


async def past_the_rate(settings: Settings, books: Books, keys: dict[str, dict[str, Any]]) -> None:
    """Ask more often than is allowed: with one key, and with bad ones."""
    wrong = bearer("fw_abcdefghijkl_" + "x" * 43)
    async with serving(settings, http_rate=1) as client:
        for headers, most in ((keys["admin"], 3), (wrong, 70)):
            for operation in books.operations:
                request = next(operation.tries())
                if "429" in operation.said["responses"]:
                    for _ in range(most):
                        answer = await ask(client, request, {**request.headers, **headers})
                        books.note(operation, [answer])
                        if answer.status_code == 429:
                            break

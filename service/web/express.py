"""The short way in, for what comes by the thousand: readings. It leads past the framework's routing.

Routing, arguments and response objects take longer than the framework's server and all of ours together. What
a request does is the same by either way, and tests hold one against the other; whatever is unusual about a
request (parameters, an Origin) goes the long way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from litestar import Request
from litestar.types import Receive, Send

from service.web.headers import Headers
from service.web.problems import CONTENT_TYPE, Problem, explain

AnyRequest = Request[Any, Any, Any]
_JSON: Final = (b"content-type", b"application/json")


class Answered(NamedTuple):
    """A status and a JSON body."""

    status: int
    body: bytes


class Route(NamedTuple):
    """Where POST requests to a path go, and what a caller needs for it (service/web/principal.py)."""

    take: Callable[[AnyRequest], Awaitable[Answered]]
    need: str


class Express:
    """Leads requests to their routes; `admit` lets them pass or raises a Problem."""

    def __init__(
        self, admit: Callable[[AnyRequest, str], Awaitable[None]], routes: Mapping[str, Route]
    ) -> None:
        self._admit = admit
        self._routes = routes

    def route(self, scope: Any) -> Route | None:
        """Give the route of a request, None where it must go the long way."""
        if scope["method"] != "POST" or scope["query_string"]:
            return None
        return self._routes.get(scope["path"])

    async def take(self, route: Route, scope: Any, receive: Receive, send: Send, extra: Headers) -> int:
        """Answer a request, with `extra` headers; give the status."""
        request: AnyRequest = Request(scope, receive, send)
        try:
            await self._admit(request, route.need)
            status, body = await route.take(request)
        except Exception as error:  # noqa: BLE001 - as the framework does: each becomes an answer
            # Kept in a variable, an error would keep this frame, and with it the connection, until the
            # garbage collector comes by.
            return await refuse(
                error if isinstance(error, Problem) else explain(scope["path"], error), send, extra
            )
        await _send(status, [_JSON, *extra], body, send)
        return status


async def refuse(problem: Problem, send: Send, extra: Headers = ()) -> int:
    """Answer with a problem, and with `extra` headers; give the status."""
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    kind = (b"content-type", CONTENT_TYPE.encode())
    await _send(problem.status, [kind, *headers, *extra], problem.body(), send)
    return problem.status


async def _send(status: int, headers: list[tuple[bytes, bytes]], body: bytes, send: Send) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})

"""The outermost layer of the application: what holds for every request before it is routed, and every answer.

It is no middleware of the framework's: those run behind its routing, so not for an address that it does not
know.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, Final

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from service.settings import Settings
from service.tallies import HTTP, OTHER, ROUTE
from service.web.express import Express, refuse
from service.web.headers import SecurityHeaders
from service.web.hosts import Hosts
from service.web.packed import Packed
from service.web.problems import Problem
from service.web.room import BodyLimits, Budget, Room

# Where a request's own method is noted in its scope, by which it may not have been routed.
ASKED: Final = "fleetwatt.asked"
_URL_BYTES_MAX: Final = 8192
_NO_METHOD: Final = "TRACE"


def _routed_as(request: Any) -> str:
    """Give the method by which a request finds its handler."""
    method: str = request["method"]
    if method == "HEAD":
        # Whatever can be got has a head (RFC 9110, 9.3.2).
        return "GET"
    if method == "OPTIONS" and not _comes_from_a_page(request):
        # The framework lists but some of an address's methods; all of them where it refuses one.
        return _NO_METHOD
    return method


def _comes_from_a_page(request: Any) -> bool:
    """Tell whether a browser says on which page a request was made."""
    return any(name == b"origin" for name, _ in request["headers"])


class Edge:
    """Wraps an application."""

    def __init__(self, app: ASGIApp, settings: Settings, express: Express) -> None:
        self._app = app
        self._express = express
        self._headers = SecurityHeaders(tls=bool(settings.http_tls_cert_file))
        self._hosts = Hosts(settings)
        self._limits = BodyLimits.of(settings)
        self._budget = Budget(settings.http_bodies_max_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request: refuse it here, or have it answered within its room; count and time it."""
        request: Any = scope
        if request["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        HTTP.in_flight += 1
        asked = request[ASKED] = request["method"]
        request["method"] = _routed_as(request)
        extra = self._headers.of(request["path"])
        blank = asked == "HEAD"
        status = 0
        out = Packed.around(send, scope) if asked == "GET" else send

        async def send_out(message: Message) -> None:
            nonlocal blank, status
            sent: Any = message
            if sent["type"] == "http.response.start":
                own = dict(sent["headers"])
                if b"GET" in own.get(b"allow", b""):
                    own[b"allow"] += b", HEAD"
                    sent["headers"] = list(own.items())
                if asked == "OPTIONS" and request["method"] == _NO_METHOD and sent["status"] == 405:
                    blank = True
                    sent["status"] = 204
                    sent["headers"] = [(b"allow", own[b"allow"])]
                sent["headers"] = [*sent["headers"], *(pair for pair in extra if pair[0] not in own)]
                status = sent["status"]
            elif blank:
                sent["body"] = b""
            await out(message)

        room = Room(self._budget, self._limits, scope)
        try:
            if (problem := self._refusal(request)) is not None:
                await refuse(problem, send_out)
            elif (route := self._express.route(request)) is not None and not _comes_from_a_page(request):
                request[ROUTE] = request["path"]
                status = await self._express.take(route, scope, receive, send, extra)
            else:
                await self._app(scope, receive, send_out)
        finally:
            room.give_back()
            HTTP.in_flight -= 1
            HTTP.done(request.get(ROUTE, OTHER), asked, status, perf_counter() - began)

    def _refusal(self, request: Any) -> Problem | None:
        """Tell why a request is refused whatever it asks for, None if it is not."""
        if len(request["raw_path"]) + len(request["query_string"]) > _URL_BYTES_MAX:
            return Problem(414, "url_too_long", f"the address has more than {_URL_BYTES_MAX} bytes")
        host = origin = site = b""
        for name, value in request["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
        if not self._hosts.serves(host):
            return Problem(
                421,
                "misdirected",
                "this service does not answer for that host: use its own address, "
                "or have the host added to FLEETWATT_HTTP_HOSTS",
                field="host",
            )
        if not self._hosts.trusts(request["method"], host, origin, site):
            return Problem(
                403,
                "cross_origin",
                "a page of another origin may not change anything here: "
                "have it added to FLEETWATT_HTTP_CORS_ORIGINS",
                field="origin",
            )
        return None

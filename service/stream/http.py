"""GET /v1/stream: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from litestar import Request, Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery, QueryParameter, SkipValidation
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from service import metrics
from service.readings import Kind
from service.stream import openapi
from service.stream.hub import Client, Hub
from service.stream.look import KINDS, Wanted, Wish
from service.stream.said import GZIP_HEAD, Said, event
from service.web import parameters
from service.web.edge import ASKED
from service.web.headers import header, takes_gzip
from service.web.principal import KEY_SECURITY, READ, needs
from service.web.problems import Problem

AnyRequest = Request[Any, Any, Any]
# Tells whether a request that was let in still would be.
Admits = Callable[[AnyRequest, str], Awaitable[bool]]

_BEAT_S: Final = 10.0
_CHECK_S: Final = 5.0
# An event goes out in parts: of a client that takes nothing the server holds a handful of them.
_PART_BYTES: Final = 32 * 1024
_RETRY: Final = Said(b"retry: 2000\n\n")
_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    # Has nginx pass on each event as it comes.
    "X-Accel-Buffering": "no",
    "Vary": "Accept-Encoding",
}
_EVENTS: Final = {name: metrics.STREAM_EVENTS.labels(name) for name in ("hello", "states", "beat")}


class EventStream(ASGIResponse):
    """An answer that goes on until its client is gone, is not let in any more, or the service ends."""

    _should_set_content_length = False

    def __init__(self, hub: Hub, wish: Wish, request: AnyRequest, admits: Admits) -> None:
        asked: str = request.scope.get(ASKED, "GET")  # type: ignore[assignment]
        self._gzip = takes_gzip(header(request.scope, b"accept-encoding"))
        coding = {"Content-Encoding": "gzip"} if self._gzip else {}
        super().__init__(headers=_HEADERS | coding, is_head_response=asked == "HEAD")
        self._hub = hub
        self._wish = wish
        self._request = request
        self._admits = admits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a place, and tell what there is to tell. Raises Problem 503 where there is no place."""
        if self.is_head_response:
            await super().__call__(scope, receive, send)
            return
        with self._hub.listening(self._wish) as client:
            gone = asyncio.create_task(_end_when_gone(client, receive))
            try:
                await self.start_response(send)
                if self._gzip:
                    await send({"type": "http.response.body", "body": GZIP_HEAD, "more_body": True})
                await self._tell(client, send)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            finally:
                gone.cancel()

    async def _tell(self, client: Client, send: Send) -> None:
        loop = asyncio.get_running_loop()
        await self._say(send, _RETRY)
        check_at = loop.time() + _CHECK_S * random.uniform(0.5, 1.0)
        beat_at = loop.time() + _BEAT_S
        while not client.ended:
            if client.seen is None and self._hub.begin(client):
                await self._say_time(send, "hello")
                beat_at = loop.time() + _BEAT_S
            if await self._tell_news(client, send):
                beat_at = loop.time() + _BEAT_S
            await client.wait(min(beat_at, check_at))
            if loop.time() >= check_at:
                if not await self._admits(self._request, READ):
                    return
                check_at = loop.time() + _CHECK_S * random.uniform(0.5, 1.0)
            if loop.time() >= beat_at and not client.ended:
                await self._say_time(send, "beat")
                beat_at = loop.time() + _BEAT_S

    async def _tell_news(self, client: Client, send: Send) -> int:
        """Tell all that is new to a client, as its turn comes; give how many events that took."""
        events = 0
        while client.seen is not None and not client.ended:
            news = client.news(self._hub.board, client.seen)
            if news.said is not None and await self._hub.pace.waited():
                news = client.news(self._hub.board, client.seen)
            client.seen = news.version
            if news.said is None or client.ended:
                break
            events += 1
            _EVENTS["states"].inc()
            metrics.STREAM_STATES.inc(news.states)
            await self._say(send, news.said, spend=True)
        return events

    async def _say_time(self, send: Send, name: str) -> None:
        _EVENTS[name].inc()
        await self._say(send, event(name, self._hub.times()))

    async def _say(self, send: Send, said: Said, *, spend: bool = False) -> None:
        out = said.packed() if self._gzip else said.plain
        metrics.STREAM_BYTES.inc(len(out))
        if spend:
            self._hub.pace.spend(len(out))
        for start in range(0, len(out), _PART_BYTES):
            part = out[start : start + _PART_BYTES]
            await send({"type": "http.response.body", "body": part, "more_body": True})


async def _end_when_gone(client: Client, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    client.end()


def _wish(kind: str | None, vehicle_ids: list[str] | None, meter_ids: list[str] | None) -> Wish:
    """Read what a client wants: some devices, or all of one kind or both. Raises Problem 400."""
    asked = _kinds(kind)
    wanted: Wish = {}
    ids: dict[Kind, frozenset[str]] = {
        "vehicle": frozenset(parameters.device("vehicleId", each) for each in vehicle_ids or ()),
        "meter": frozenset(parameters.device("meterId", each) for each in meter_ids or ()),
    }
    for each in KINDS:
        if ids[each] and each not in asked:
            raise _bad(f"{each}Id", f"{each}Id does not go with kind={kind}: leave one of them out")
        wanted[each] = Wanted(None if each in asked and not any(ids.values()) else ids[each])
    if sum(map(len, ids.values())) > openapi.IDS_MAX:
        raise _bad(
            "vehicleId" if ids["vehicle"] else "meterId",
            f"a stream takes {openapi.IDS_MAX} ids at most, of vehicles and meters together: "
            "leave them out, and take what you want of all",
        )
    return wanted


def _kinds(text: str | None) -> set[str]:
    asked = set(KINDS if text is None else text.split(","))
    if not asked <= set(KINDS):
        raise _bad("kind", "kind must be vehicle, meter or vehicle,meter")
    return set(asked)


def _bad(field: str, message: str) -> Problem:
    return Problem(400, "bad_parameter", message, field=field)


@get(
    "/v1/stream", operation_class=openapi.STREAM, summary="Changed states as they come, by server-sent events"
)
async def stream(
    request: AnyRequest,
    hub: NamedDependency[SkipValidation[Hub]],
    admits: NamedDependency[SkipValidation[Admits]],
    kind: FromQuery[str | None] = None,
    vehicle_id: Annotated[list[str] | None, QueryParameter(name="vehicleId")] = None,
    meter_id: Annotated[list[str] | None, QueryParameter(name="meterId")] = None,
) -> ASGIResponse:
    """Open a stream of the newest states of devices that have changed, at most once a second.

    Wait for the event hello before you load states page by page, with Cache-Control: no-cache: what changes
    from then on is told. Each event states holds up to 1,000 devices, as GET /v1/analytics/vehicles/states
    and /v1/analytics/meters/states give them; more follow in further events. A client that is slow gets
    fewer events, with newer states. While nothing happens there is a beat every 10 seconds, whose asOf is
    the moment as of which states are known. After a reconnect load the pages anew.
    """
    return EventStream(hub, _wish(kind, vehicle_id, meter_id), request, admits)


def router(hub: Hub, admits: Admits) -> Router:
    """Give the route of the stream, bound to a hub."""
    return Router(
        path="/",
        route_handlers=[stream],
        dependencies={
            "hub": Provide(lambda: hub, sync_to_thread=False),
            "admits": Provide(lambda: admits, sync_to_thread=False),
        },
        tags=["Analytics"],
        opt=needs(READ),
        security=KEY_SECURITY,
    )

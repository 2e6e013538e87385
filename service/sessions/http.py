"""Routes of charging sessions: start, end, correct, list, their audit trail, and standing assignments."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, Router, get, patch, post, put
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery, PathParameter, QueryParameter, SkipValidation

from service.sessions import openapi
from service.sessions.errors import BadTimesError, ConflictError, SessionError, UnknownError
from service.sessions.model import NewAssignment, NewSession, SessionUpdate
from service.sessions.store import Sessions
from service.web import parameters
from service.web.answers import answer, cut_page
from service.web.bodies import read_json
from service.web.principal import KEY_SECURITY, READ, SESSIONS, needs
from service.web.problems import Problem

AnyRequest = Request[Any, Any, Any]
# We made it: nothing to validate on each request.
InjectedSessions = NamedDependency[SkipValidation[Sessions]]
_LIMIT_MAX = 1000
_STATUS: Final[dict[type[SessionError], int]] = {BadTimesError: 400, UnknownError: 404, ConflictError: 409}
# Problems that tell of the session in the way, if it is still there.
_TITLES: Final = {
    "session_overlap": "A meter serves one vehicle at a time",
    "session_started_later": "An open session of the vehicle starts too late",
}


@post(
    "/v1/sessions",
    operation_class=openapi.ADD,
    summary="Start a session, or store a finished one",
    opt=needs(SESSIONS),
)
async def add_session(request: AnyRequest, sessions: InjectedSessions) -> Response[bytes]:
    """Store {"vehicleId", "meterId", "startedAt", "endedAt" (null while open), "sessionId" (optional)}."""
    session, new = await sessions.add(await read_json(request, NewSession))
    return answer(session, 201 if new else 200)


@get("/v1/sessions", operation_class=openapi.LIST, summary="Sessions, newest first")
async def list_sessions(
    sessions: InjectedSessions,
    vehicle_id: Annotated[str | None, QueryParameter(name="vehicleId")] = None,
    meter_id: Annotated[str | None, QueryParameter(name="meterId")] = None,
    from_: Annotated[str | None, QueryParameter(name="from")] = None,
    to: FromQuery[str | None] = None,
    open_: Annotated[str | None, QueryParameter(name="open")] = None,
    limit: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
) -> Response[bytes]:
    """Give sessions that touch [from, to), by vehicle, by meter, open or ended; `next` goes into `after`."""
    size = parameters.page(limit, None, _LIMIT_MAX)["page_size"]
    start, end = parameters.open_window(from_, to)
    last = None if after is None else await sessions.get(parameters.device("after", after))
    found = await sessions.list(
        {
            "vehicle_id": None if vehicle_id is None else parameters.device("vehicleId", vehicle_id),
            "meter_id": None if meter_id is None else parameters.device("meterId", meter_id),
            "window_from": start,
            "window_to": end,
            "is_open": None if open_ is None else parameters.flag("open", open_),
            "after_start": last.started_at if last else None,
            "after_id": last.session_id if last else None,
            "page_size": size + 1,
        }
    )
    found, at_end = cut_page(found, size)
    return answer({"sessions": found, "next": at_end and at_end.session_id})


@patch(
    "/v1/sessions/{sessionId:str}",
    operation_class=openapi.CHANGE,
    summary="End or correct a session",
    opt=needs(SESSIONS),
)
async def change_session(
    request: AnyRequest,
    sessions: InjectedSessions,
    session_id: Annotated[str, PathParameter(name="sessionId")],
) -> Response[bytes]:
    """Change what is given of {"endedAt", "startedAt", "vehicleId", "meterId"}; the rest stays."""
    update = await read_json(request, SessionUpdate)
    if update == SessionUpdate():
        # A name that was mistyped must not look like a change that was made.
        message = 'nothing to change: give some of "endedAt", "startedAt", "vehicleId", "meterId"'
        raise Problem(400, "missing", message)
    return answer(await sessions.change(parameters.device("sessionId", session_id), update))


@get("/v1/sessions/{sessionId:str}", operation_class=openapi.GET, summary="One session")
async def get_session(
    sessions: InjectedSessions, session_id: Annotated[str, PathParameter(name="sessionId")]
) -> Response[bytes]:
    """Give a session by its id."""
    return answer(await sessions.get(parameters.device("sessionId", session_id)))


@get(
    "/v1/sessions/{sessionId:str}/changes",
    operation_class=openapi.CHANGES,
    summary="Audit trail of a session",
)
async def list_changes(
    sessions: InjectedSessions, session_id: Annotated[str, PathParameter(name="sessionId")]
) -> Response[bytes]:
    """Give every change, oldest first; none for an untouched session that is older than the trail."""
    session = parameters.device("sessionId", session_id)
    return answer({"sessionId": session, "changes": await sessions.changes(session)})


@put(
    "/v1/vehicles/{vehicleId:str}/meter",
    operation_class=openapi.ASSIGN,
    summary="Give a vehicle a meter until further notice",
    opt=needs(SESSIONS),
)
async def assign_meter(
    request: AnyRequest,
    sessions: InjectedSessions,
    vehicle_id: Annotated[str, PathParameter(name="vehicleId")],
) -> Response[bytes]:
    """End the vehicle's open sessions at `since` (or now) and open one on the meter; null only ends them.

    On a meter that is the vehicle's already nothing changes: its session stays as it is.
    """
    new = await read_json(request, NewAssignment)
    return answer(await sessions.assign(parameters.device("vehicleId", vehicle_id), new))


@get(
    "/v1/vehicles/{vehicleId:str}/meter",
    operation_class=openapi.ASSIGNED,
    summary="The vehicle's meter until further notice",
)
async def assigned_meter(
    sessions: InjectedSessions, vehicle_id: Annotated[str, PathParameter(name="vehicleId")]
) -> Response[bytes]:
    """Give the vehicle's newest open session; nulls where it has none. `since` may lie ahead."""
    return answer(await sessions.assigned(parameters.device("vehicleId", vehicle_id)))


def _of_session(_request: AnyRequest, error: SessionError) -> Response[bytes]:
    """Tell a client why something cannot be done with a session."""
    title = _TITLES.get(error.code)
    extra = {"other": msgspec.to_builtins(error.other)} if title else None
    status = _STATUS[type(error)]
    return Problem(status, error.code, str(error), title=title, field=error.field, extra=extra).response()


def router(sessions: Sessions) -> Router:
    """Give the routes of sessions, bound to a pool."""
    return Router(
        path="/",
        route_handlers=[
            add_session,
            list_sessions,
            get_session,
            change_session,
            list_changes,
            assign_meter,
            assigned_meter,
        ],
        dependencies={"sessions": Provide(lambda: sessions, sync_to_thread=False)},
        exception_handlers={SessionError: _of_session},
        tags=["Sessions"],
        opt=needs(READ),
        security=KEY_SECURITY,
    )

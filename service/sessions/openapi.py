"""What the OpenAPI document says of the routes of sessions."""

from __future__ import annotations

from typing import Any, Final

from litestar.openapi.spec import Example, OpenAPIMediaType, OpenAPIType, Reference, RequestBody, Schema

from service.web.apidocs import (
    COUNT,
    DATABASE_AWAY,
    ID,
    STRING,
    TIME,
    UNKNOWN_DEVICE,
    UNREAD,
    Told,
    an_array,
    an_object,
    json_answer,
    one_of,
    operation,
    or_null,
    page_size,
    problem,
)
from service.web.problems import Problem

_FIELDS: Final = {
    "sessionId": ID,
    "vehicleId": ID,
    "meterId": ID,
    "startedAt": TIME,
    "endedAt": or_null(TIME),
}
_SESSION: Final = an_object("Session", **_FIELDS)
# An id and a span of its own for each hour, since the document's hours move on: it can be sent again.
_EXAMPLE: Final = {
    "sessionId": "example-2026-01-31T11",
    "vehicleId": "VH-EXAMPLE",
    "meterId": "METER-EXAMPLE",
    "startedAt": "2026-01-31T11:00:00Z",
    "endedAt": "2026-01-31T11:45:00Z",
}
_ASSIGNED: Final = {
    "vehicleId": "VH-EXAMPLE",
    "meterId": "METER-EXAMPLE-2",
    "since": "2026-01-31T12:00:00Z",
    "sessionId": "session-42",
}
_NOBODYS: Final = {"vehicleId": "VH-0001", "meterId": None, "since": None, "sessionId": None}
_A_CHANGE: Final = {
    "changeId": 1,
    "changedAt": "2026-01-31T12:00:01.402Z",
    "action": "recorded",
    "source": "http",
    "before": None,
    "after": {name: value for name, value in _EXAMPLE.items() if name != "sessionId"},
}


def _body(required: list[str], example: dict[str, Any], **more: Schema) -> RequestBody:
    properties: dict[str, Reference | Schema] = {
        name: schema for name, schema in _FIELDS.items() if name != "sessionId"
    }
    properties |= more
    schema = Schema(type=OpenAPIType.OBJECT, properties=properties, required=required or None)
    media = OpenAPIMediaType(schema=schema, examples={"session": Example(value=example)})
    return RequestBody(required=True, content={"application/json": media})


_VALUES: Final = or_null(
    an_object(**{name: schema for name, schema in _FIELDS.items() if name != "sessionId"})
)
_ACTION: Final = one_of("started", "recorded", "ended", "reopened", "corrected", "deleted")
_CHANGE: Final = an_object(
    "SessionChange",
    changeId=COUNT,
    changedAt=TIME,
    action=_ACTION,
    source=STRING,
    before=_VALUES,
    after=_VALUES,
)
_ASSIGNMENT: Final = an_object(
    "Assignment", vehicleId=ID, meterId=or_null(ID), since=or_null(TIME), sessionId=or_null(ID)
)
_ASSIGN_BODY: Final = RequestBody(
    required=True,
    content={
        "application/json": OpenAPIMediaType(
            schema=Schema(
                type=OpenAPIType.OBJECT,
                properties={"meterId": or_null(ID), "since": or_null(TIME)},
                required=["meterId"],
            ),
            examples={
                "assign": Example(value={"meterId": "METER-EXAMPLE-2", "since": "2026-01-31T12:00:00Z"})
            },
        )
    },
)

_BAD: Final = problem("The body or a parameter is not valid")
_BUSY_EXAMPLE: Final = Problem(
    409,
    "session_overlap",
    "meter 'METER-EXAMPLE' is taken in that time by session 'session-41' of vehicle 'VH-0002'",
    title="A meter serves one vehicle at a time",
    field="meterId",
    extra={"other": {**_EXAMPLE, "sessionId": "session-41", "vehicleId": "VH-0002"}},
)
_BUSY: Final = problem("The meter is taken in that time (the session is named), or the id is", _BUSY_EXAMPLE)
_UNKNOWN: Final = problem(
    "There is no such session", Problem(404, "unknown_session", "there is no session 'session-9'")
)

ADD: Final = operation(
    {
        "200": json_answer(_SESSION, "The same session was stored before", _EXAMPLE),
        "201": json_answer(_SESSION, "Stored", _EXAMPLE),
        "400": _BAD,
        "409": _BUSY,
        **UNREAD,
        "503": DATABASE_AWAY,
    },
    _body(["vehicleId", "meterId", "startedAt"], _EXAMPLE, sessionId=or_null(ID)),
)
CHANGE: Final = operation(
    {
        "200": json_answer(_SESSION, "Changed", _EXAMPLE),
        "400": _BAD,
        "404": _UNKNOWN,
        "409": _BUSY,
        **UNREAD,
        "503": DATABASE_AWAY,
    },
    _body([], {"endedAt": _EXAMPLE["endedAt"]}),
)
GET: Final = operation(
    {
        "200": json_answer(_SESSION, "The session", _EXAMPLE),
        "400": _BAD,
        "404": _UNKNOWN,
        "503": DATABASE_AWAY,
    }
)
CHANGES: Final = operation(
    {
        "200": json_answer(
            an_object(sessionId=ID, changes=an_array(_CHANGE)),
            "Its changes, oldest first",
            {"sessionId": _EXAMPLE["sessionId"], "changes": [_A_CHANGE]},
        ),
        "400": _BAD,
        "404": _UNKNOWN,
        "503": DATABASE_AWAY,
    }
)
ASSIGN: Final = operation(
    {
        "200": json_answer(_ASSIGNMENT, "The assignment as it is now", _ASSIGNED),
        "400": _BAD,
        "404": problem("meterId is null, and nobody ever heard of the vehicle"),
        "409": problem(
            "The meter is taken, or an open session of the vehicle started too late (it is named)",
            _BUSY_EXAMPLE,
        ),
        **UNREAD,
        "503": DATABASE_AWAY,
    },
    _ASSIGN_BODY,
    {"vehicleId": Told("Id of a vehicle", ID, "VH-EXAMPLE")},
)
ASSIGNED: Final = operation(
    {
        "200": json_answer(_ASSIGNMENT, "The assignment, or nulls", _NOBODYS),
        "400": _BAD,
        "404": UNKNOWN_DEVICE,
        "503": DATABASE_AWAY,
    }
)
LIST: Final = operation(
    {
        "200": json_answer(
            an_object(sessions=an_array(_SESSION), next=or_null(ID)),
            "A page of sessions",
            {"sessions": [_EXAMPLE], "next": None},
        ),
        "400": _BAD,
        "404": problem(
            "The session named in `after` does not exist",
            Problem(404, "unknown_session", "there is no session 'session-9'"),
        ),
        "503": DATABASE_AWAY,
    },
    parameters={"limit": page_size(1000, 1000)},
)

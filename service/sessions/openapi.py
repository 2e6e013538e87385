"""What the OpenAPI document says of the routes of sessions."""

from __future__ import annotations

from typing import Any, Final

from litestar.openapi.spec import Example, OpenAPIMediaType, OpenAPIType, Reference, RequestBody, Schema

from service.web.apidocs import (
    COUNT,
    DATABASE_AWAY,
    STRING,
    TIME,
    UNKNOWN_DEVICE,
    UNREAD,
    an_array,
    an_object,
    json_answer,
    one_of,
    operation,
    or_null,
    problem,
)

_ID: Final = Schema(type=OpenAPIType.STRING, pattern=r"^[A-Za-z0-9._:\-]+$", min_length=1, max_length=64)
_FIELDS: Final = {
    "sessionId": _ID,
    "vehicleId": _ID,
    "meterId": _ID,
    "startedAt": TIME,
    "endedAt": or_null(TIME),
}
_SESSION: Final = an_object("Session", **_FIELDS)
_EXAMPLE: Final = {"vehicleId": "VH-001", "meterId": "METER-001", "startedAt": "2026-01-31T12:00:00Z"}


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
    "Assignment", vehicleId=_ID, meterId=or_null(_ID), since=or_null(TIME), sessionId=or_null(_ID)
)
_ASSIGN_BODY: Final = RequestBody(
    required=True,
    content={
        "application/json": OpenAPIMediaType(
            schema=Schema(
                type=OpenAPIType.OBJECT,
                properties={"meterId": or_null(_ID), "since": or_null(TIME)},
                required=["meterId"],
            ),
            examples={"assign": Example(value={"meterId": "METER-001", "since": "2026-01-31T12:00:00Z"})},
        )
    },
)

_BAD: Final = problem("The body or a parameter is not valid")
_BUSY: Final = problem("The meter is taken in that time (the session is named), or the id is")

ADD: Final = operation(
    {
        "200": json_answer(_SESSION, "The same session was stored before"),
        "201": json_answer(_SESSION, "Stored"),
        "400": _BAD,
        "409": _BUSY,
        **UNREAD,
        "503": DATABASE_AWAY,
    },
    _body(["vehicleId", "meterId", "startedAt"], _EXAMPLE, sessionId=or_null(_ID)),
)
CHANGE: Final = operation(
    {
        "200": json_answer(_SESSION, "Changed"),
        "400": _BAD,
        "404": problem("There is no such session"),
        "409": _BUSY,
        **UNREAD,
        "503": DATABASE_AWAY,
    },
    _body([], {"endedAt": "2026-01-31T13:30:00Z"}),
)
_UNKNOWN: Final = problem("There is no such session")
GET: Final = operation(
    {"200": json_answer(_SESSION, "The session"), "400": _BAD, "404": _UNKNOWN, "503": DATABASE_AWAY}
)
CHANGES: Final = operation(
    {
        "200": json_answer(an_object(sessionId=_ID, changes=an_array(_CHANGE)), "Its changes, oldest first"),
        "400": _BAD,
        "404": _UNKNOWN,
        "503": DATABASE_AWAY,
    }
)
ASSIGN: Final = operation(
    {
        "200": json_answer(_ASSIGNMENT, "The assignment as it is now"),
        "400": _BAD,
        "404": problem("meterId is null, and nobody ever heard of the vehicle"),
        "409": problem(
            "The meter is taken, or an open session of the vehicle started too late (it is named)"
        ),
        **UNREAD,
        "503": DATABASE_AWAY,
    },
    _ASSIGN_BODY,
)
ASSIGNED: Final = operation(
    {
        "200": json_answer(_ASSIGNMENT, "The assignment, or nulls"),
        "400": _BAD,
        "404": UNKNOWN_DEVICE,
        "503": DATABASE_AWAY,
    }
)
LIST: Final = operation(
    {
        "200": json_answer(an_object(sessions=an_array(_SESSION), next=or_null(_ID)), "A page of sessions"),
        "400": _BAD,
        "404": problem("The session named in `after` does not exist"),
        "503": DATABASE_AWAY,
    }
)

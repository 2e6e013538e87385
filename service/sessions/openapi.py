"""What the OpenAPI document says of the routes of sessions."""

from __future__ import annotations

from typing import Any, Final

from litestar.openapi.spec import Example, OpenAPIMediaType, OpenAPIType, RequestBody, Schema

from service.web.apidocs import (
    DATABASE_AWAY,
    TIME,
    an_array,
    an_object,
    json_answer,
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


def _body(required: list[str], example: dict[str, Any]) -> RequestBody:
    schema = Schema(type=OpenAPIType.OBJECT, properties=dict(_FIELDS), required=required or None)
    media = OpenAPIMediaType(schema=schema, examples={"session": Example(value=example)})
    return RequestBody(required=True, content={"application/json": media})


_BAD: Final = problem("The body or a parameter is not valid")
_BUSY: Final = problem("The meter serves another vehicle in that time, or the id is taken")

ADD: Final = operation(
    {
        "200": json_answer(_SESSION, "The same session was stored before"),
        "201": json_answer(_SESSION, "Stored"),
        "400": _BAD,
        "409": _BUSY,
        "413": problem("The body is too large"),
        "503": DATABASE_AWAY,
    },
    _body(["vehicleId", "meterId", "startedAt"], _EXAMPLE),
)
CHANGE: Final = operation(
    {
        "200": json_answer(_SESSION, "Changed"),
        "400": _BAD,
        "404": problem("There is no such session"),
        "409": _BUSY,
        "413": problem("The body is too large"),
        "503": DATABASE_AWAY,
    },
    _body([], {"endedAt": "2026-01-31T13:30:00Z"}),
)
LIST: Final = operation(
    {
        "200": json_answer(an_object(sessions=an_array(_SESSION), next=or_null(_ID)), "A page of sessions"),
        "400": _BAD,
        "404": problem("The session named in `after` does not exist"),
        "503": DATABASE_AWAY,
    }
)

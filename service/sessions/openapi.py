"""What the OpenAPI document says of the routes of sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from litestar.openapi.spec import (
    Example,
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)

from service.apidocs import json_answer, problem

_ID: Final = Schema(type=OpenAPIType.STRING, pattern=r"^[A-Za-z0-9._:\-]+$", min_length=1, max_length=64)
_TIME: Final = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME)
_END: Final = Schema(
    one_of=[_TIME, Schema(type=OpenAPIType.NULL)], description="null while the session is open"
)
_FIELDS: Final = {"sessionId": _ID, "vehicleId": _ID, "meterId": _ID, "startedAt": _TIME, "endedAt": _END}
_SESSION: Final = Schema(type=OpenAPIType.OBJECT, title="Session", properties=dict(_FIELDS))
_EXAMPLE: Final = {"vehicleId": "VH-001", "meterId": "METER-001", "startedAt": "2026-01-31T12:00:00Z"}


def _body(required: list[str], example: dict[str, Any]) -> RequestBody:
    schema = Schema(type=OpenAPIType.OBJECT, properties=dict(_FIELDS), required=required or None)
    media = OpenAPIMediaType(schema=schema, examples={"session": Example(value=example)})
    return RequestBody(required=True, content={"application/json": media})


_ERRORS: Final = {
    "400": problem("The body or a parameter is not valid"),
    "503": problem("The database is away: try again after Retry-After seconds"),
}


@dataclass
class Add(Operation):
    """POST /v1/sessions."""

    def __post_init__(self) -> None:
        self.request_body = _body(["vehicleId", "meterId", "startedAt"], _EXAMPLE)
        self.responses = {
            "200": json_answer(_SESSION, "The same session was stored before"),
            "201": json_answer(_SESSION, "Stored"),
            "409": problem("The meter serves another vehicle in that time, or the id is taken"),
            **_ERRORS,
        }


@dataclass
class Change(Operation):
    """PATCH /v1/sessions/{sessionId}."""

    def __post_init__(self) -> None:
        self.request_body = _body([], {"endedAt": "2026-01-31T13:30:00Z"})
        self.responses = {
            "200": json_answer(_SESSION, "Changed"),
            "404": problem("There is no such session"),
            "409": problem("The meter serves another vehicle in that time"),
            **_ERRORS,
        }


@dataclass
class List(Operation):
    """GET /v1/sessions."""

    def __post_init__(self) -> None:
        page = Schema(
            type=OpenAPIType.OBJECT,
            properties={
                "sessions": Schema(type=OpenAPIType.ARRAY, items=_SESSION),
                "next": Schema(one_of=[_ID, Schema(type=OpenAPIType.NULL)]),
            },
        )
        self.responses = {
            "200": json_answer(page, "A page of sessions"),
            "404": problem("The session named in `after` does not exist"),
            **_ERRORS,
        }

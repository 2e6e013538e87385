"""The words in which routes are described for the OpenAPI document: answers, schemas, parameters, statuses.

What all routes have in common (statuses of keys, hosts and origins) is added once all of them are known.
Examples that no route gives are composed when the document is served (service/web/apiexamples.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import msgspec
from litestar.openapi.spec import (
    OpenAPI,
    OpenAPIFormat,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
)

from service.web.problems import CONTENT_TYPE, Problem

PROBLEM: Final = Schema(
    type=OpenAPIType.OBJECT,
    title="Problem",
    description="RFC 9457 problem details",
    properties={
        "type": Schema(type=OpenAPIType.STRING, description="Stable: urn:fleetwatt:problem:<code>"),
        "title": Schema(type=OpenAPIType.STRING),
        "status": Schema(type=OpenAPIType.INTEGER),
        "detail": Schema(type=OpenAPIType.STRING),
        "code": Schema(type=OpenAPIType.STRING),
        "field": Schema(type=OpenAPIType.STRING, description="The field to blame, if there is one"),
    },
    required=["type", "title", "status", "detail", "code"],
)


def problem(description: str, example: Problem | None = None) -> OpenAPIResponse:
    """Describe an error answer; `example` is one that it may be, where the status alone does not tell."""
    body = None if example is None else msgspec.json.decode(example.body())
    media = OpenAPIMediaType(schema=PROBLEM, example=body)
    return OpenAPIResponse(description=description, content={CONTENT_TYPE: media})


def json_answer(schema: Schema, description: str, example: Any = None) -> OpenAPIResponse:
    """Describe an answer in JSON. Without an example one is composed of its fields."""
    # As text, which `filled` reads again: the framework leaves nulls out of what is given as objects.
    text = None if example is None else msgspec.json.encode(example).decode()
    media = OpenAPIMediaType(schema=schema, example=text)
    return OpenAPIResponse(description=description, content={"application/json": media})


def an_object(title: str | None = None, /, **properties: Schema) -> Schema:
    """Describe a JSON object that has all of these fields; the names are as they stand in the answer."""
    names = list(properties)
    return Schema(type=OpenAPIType.OBJECT, title=title, properties=dict(properties), required=names)


def lacking(schema: Schema, *names: str) -> Schema:
    """Describe the same object, in which some fields may be absent."""
    return replace(schema, required=[name for name in schema.required or () if name not in names])


def an_array(items: Schema) -> Schema:
    """Describe a JSON array."""
    return Schema(type=OpenAPIType.ARRAY, items=items)


def or_null(schema: Schema) -> Schema:
    """Describe a value that may be absent."""
    return Schema(one_of=[schema, Schema(type=OpenAPIType.NULL)])


def one_of(*values: str) -> Schema:
    """Describe a text that is one of some words."""
    return Schema(type=OpenAPIType.STRING, enum=list(values))


STRING: Final = Schema(type=OpenAPIType.STRING)
NUMBER: Final = Schema(type=OpenAPIType.NUMBER)
COUNT: Final = Schema(type=OpenAPIType.INTEGER, minimum=0)
BOOLEAN: Final = Schema(type=OpenAPIType.BOOLEAN)
TIME: Final = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.DATE_TIME)
BAD_PARAMETER: Final = problem("A parameter is not valid")
UNKNOWN_DEVICE: Final = problem("Nobody ever heard of this device")
DATABASE_AWAY: Final = problem("The database is away: try again after Retry-After seconds")
# Of a body in JSON that did not get so far as to be understood.
UNREAD: Final = {
    "408": problem("The body did not arrive in time"),
    "413": problem("The body is too large"),
    "415": problem("The body is not JSON, or in an encoding other than gzip"),
}

ID: Final = Schema(type=OpenAPIType.STRING, pattern=r"^[A-Za-z0-9._:\-]+$", min_length=1, max_length=64)


# Ids of devices are those of the simulator, so of the demo. What an example stores is of other ones.
PATH_EXAMPLES: Final[dict[str, Any]] = {
    "vehicleId": "VH-0001",
    "meterId": "METER-0001",
    "sessionId": "example-2026-01-31T11",
    "letterId": 1,
}


class Told(NamedTuple):
    """What is said of a parameter. An example is filled in on the API page: the request must work with it."""

    description: str
    schema: Schema
    example: Any = None


def page_size(most: int, unless_asked: int) -> Told:
    """Describe `limit`."""
    size = Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=most)
    return Told(f"How many at most, up to {most:,}; {unless_asked:,} unless given", size, 10)


def choice(description: str, *words: str) -> Told:
    """Describe a parameter that is one of some words."""
    return Told(description, one_of(*words))


_WHEN: Final = "RFC 3339 with a zone, such as 2026-01-31T12:00:00Z"
# By name, since a name means the same on most routes; the others say it themselves. Handlers read them as
# text, to say what is wrong.
_PARAMETERS: Final = {
    "vehicleId": Told("Id of a vehicle", ID),
    "meterId": Told("Id of a meter", ID),
    "sessionId": Told(
        "Id of a session; the example is the one that the example of POST /v1/sessions has", ID
    ),
    "letterId": Told(
        "Id of a dead letter; the first one is there once an example of POST /v1/telemetry was refused",
        Schema(type=OpenAPIType.INTEGER, minimum=1),
    ),
    "from": Told(f"Start of the window, included: {_WHEN}", TIME),
    "to": Told(f"End of the window, not included: {_WHEN}", TIME),
    "since": Told(f"Those whose newest reading is not older: {_WHEN}", TIME),
    "before": Told(f"Those whose newest reading is older: {_WHEN}", TIME),
    "atomic": Told("Store all or nothing", BOOLEAN),
    "open": Told("Only open sessions, or only ended ones", BOOLEAN),
    "after": Told("Where the page before ended: its `next`", ID),
    "leastKwh": Told(
        "Leave out what drew less AC energy than this, kWh; 0.5 unless given",
        Schema(type=OpenAPIType.NUMBER, minimum=0),
    ),
    "socBelow": Told(
        "Those with a state of charge below this, percent",
        Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=100),
    ),
    "tz": Told("Time zone by its IANA name, such as Europe/Zurich; UTC unless given", STRING),
}


def _describe(parameter: Parameter, own: dict[str, Told]) -> None:
    """Say what a parameter is, what it must look like, and what to try."""
    said = own.get(parameter.name) or _PARAMETERS.get(parameter.name) or Told("", STRING)
    # None of them may be null: what is absent is left out.
    parameter.description, parameter.schema, parameter.example = said
    if parameter.example is None and parameter.param_in == "path":
        parameter.example = PATH_EXAMPLES.get(parameter.name)


def operation(
    responses: dict[str, OpenAPIResponse],
    body: RequestBody | None = None,
    parameters: dict[str, Told] | None = None,
) -> type[Operation]:
    """Make the class that the framework wants in order to describe one operation by hand.

    `parameters` are those that do not mean what their names mean elsewhere.
    """

    @dataclass
    class Described(Operation):
        def __post_init__(self) -> None:
            self.responses = dict(responses)
            if body is not None:
                self.request_body = body
            for parameter in self.parameters or ():
                if isinstance(parameter, Parameter):
                    _describe(parameter, parameters or {})

    return Described


_EVERYWHERE: Final = {
    "414": "The address has more than 8192 bytes",
    "421": "The service does not answer for the host that the request names",
}
_OF_CHANGES: Final = {"403": "A page of another origin asks (cross_origin)"}
_OF_KEYS: Final = {
    "401": "No key, or not a good one (missing_key, bad_key, revoked_key, expired_key)",
    "403": "The key lacks the scope, or is bound to other devices (not_allowed, foreign_device)",
    "429": "Too many requests: come back after Retry-After seconds",
    "503": "The database is away: try again after Retry-After seconds",
}
_SECONDS: Final = OpenAPIHeader(
    schema=Schema(type=OpenAPIType.STRING, pattern="^[0-9]+$"),
    description="Seconds after which to try again",
    required=True,
)
_HEADERS: Final = {
    "401": {
        "WWW-Authenticate": OpenAPIHeader(
            schema=STRING, description="Bearer, and what is wrong", required=True
        )
    },
    "429": {"Retry-After": _SECONDS},
    "503": {"Retry-After": _SECONDS},
}


def tell_common_statuses(document: OpenAPI) -> None:
    """Add to each operation what it may answer for reasons that are not its own: keys, hosts, origins."""
    for item in (document.paths or {}).values():
        for described in (item.get, item.post, item.put, item.patch, item.delete):
            if described is None:
                continue
            own: dict[str, Any] = dict(described.responses or {})
            _add(own, _EVERYWHERE)
            if described is not item.get:
                _add(own, _OF_CHANGES)
            if described.security:
                _add(own, _OF_KEYS)
            for status, headers in _HEADERS.items():
                if status in own:
                    own[status] = replace(own[status], headers={**headers, **(own[status].headers or {})})
            described.responses = dict(sorted(own.items()))


def _add(own: dict[str, Any], common: dict[str, str]) -> None:
    for status, description in common.items():
        known = own.get(status)
        if known is None:
            own[status] = problem(description)
        elif description not in known.description and status != "503":
            own[status] = replace(known, description=f"{known.description}. {description}")

"""What the OpenAPI document says of the routes of dead letters."""

from __future__ import annotations

from typing import Any, Final

from litestar.openapi.spec import Example, OpenAPIMediaType, OpenAPIType, RequestBody, Schema

from service.web.apidocs import (
    BAD_PARAMETER,
    BOOLEAN,
    COUNT,
    DATABASE_AWAY,
    STRING,
    TIME,
    UNREAD,
    an_array,
    an_object,
    json_answer,
    one_of,
    operation,
    or_null,
    problem,
)

_ID: Final = Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=2**53)
_KIND: Final = one_of("meter", "vehicle")
_LETTER: Final = an_object(
    "DeadLetter",
    id=_ID,
    receivedAt=TIME,
    origin=STRING,
    kind=or_null(_KIND),
    deviceId=or_null(STRING),
    code=STRING,
    field=or_null(STRING),
    message=STRING,
    raw=or_null(STRING),
    rawBase64=or_null(STRING),
    rawSize=COUNT,
    truncated=BOOLEAN,
    replays=COUNT,
    replayedAt=or_null(TIME),
    replayError=or_null(STRING),
    resolvedAt=or_null(TIME),
)
_GROUP: Final = an_object(
    "DeadLetterGroup",
    code=STRING,
    kind=or_null(_KIND),
    letters=COUNT,
    waiting=COUNT,
    rawBytes=COUNT,
    oldest=TIME,
    newest=TIME,
)
_RESULT: Final = an_object(
    "ReplayResult",
    id=_ID,
    result=one_of("stored", "duplicate", "waits", "refused", "skipped"),
    stored=COUNT,
    duplicates=COUNT,
    refused=COUNT,
    code=or_null(STRING),
    message=or_null(STRING),
)
_REPORT: Final = an_object(
    "ReplayReport",
    replayed=COUNT,
    resolved=COUNT,
    stored=COUNT,
    duplicates=COUNT,
    refused=COUNT,
    skipped=COUNT,
    results=an_array(_RESULT),
    more=BOOLEAN,
    next=or_null(_ID),
)
_REQUEST: Final = Schema(
    type=OpenAPIType.OBJECT,
    properties={
        "ids": Schema(type=OpenAPIType.ARRAY, items=_ID, min_items=1, max_items=5000),
        "kind": _KIND,
        "deviceId": Schema(
            type=OpenAPIType.STRING, pattern=r"^[A-Za-z0-9._:\-]+$", min_length=1, max_length=64
        ),
        "code": Schema(type=OpenAPIType.STRING, pattern=r"^[a-z_]{1,64}$"),
        "origin": Schema(type=OpenAPIType.STRING, min_length=1, max_length=1000),
        "from": TIME,
        "to": TIME,
        "limit": Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=10_000),
        "after": _ID,
    },
    additional_properties=False,
)
_EXAMPLES: Final[dict[str, Any]] = {
    "by code": {"code": "future_timestamp", "limit": 100},
    "by origin": {"origin": "mqtt:", "from": "2026-01-31T00:00:00Z"},
    "by id": {"ids": [1, 2, 3]},
}

LIST: Final = operation(
    {
        "200": json_answer(an_object(deadLetters=an_array(_LETTER), next=or_null(_ID)), "A page of letters"),
        "400": BAD_PARAMETER,
        "503": DATABASE_AWAY,
    }
)
SUMMARY: Final = operation(
    {"200": json_answer(an_object(groups=an_array(_GROUP)), "Counts by code and kind"), "503": DATABASE_AWAY}
)
GET: Final = operation(
    {
        "200": json_answer(_LETTER, "The letter"),
        "400": BAD_PARAMETER,
        "404": problem("There is no such letter (any more)"),
        "503": DATABASE_AWAY,
    }
)
REPLAY: Final = operation(
    {
        "200": json_answer(_REPORT, "What came of it"),
        "400": problem("The body or a filter in it is not valid"),
        **UNREAD,
        "503": DATABASE_AWAY,
    },
    RequestBody(
        required=True,
        content={
            "application/json": OpenAPIMediaType(
                schema=_REQUEST,
                examples={name: Example(value=value) for name, value in _EXAMPLES.items()},
            )
        },
    ),
)

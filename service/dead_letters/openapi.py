"""What the OpenAPI document says of the routes of dead letters."""

from __future__ import annotations

from typing import Any, Final

from litestar.openapi.spec import Example, OpenAPIMediaType, OpenAPIType, RequestBody, Schema

from service.web.apidocs import (
    BAD_PARAMETER,
    BOOLEAN,
    COUNT,
    DATABASE_AWAY,
    ID,
    STRING,
    TIME,
    UNREAD,
    Told,
    an_array,
    an_object,
    choice,
    json_answer,
    one_of,
    operation,
    or_null,
    page_size,
    problem,
)
from service.web.problems import Problem

_ID: Final = Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=2**53)
_CODE: Final = Schema(type=OpenAPIType.STRING, pattern=r"^[a-z_]{1,64}$")
_ORIGIN: Final = Schema(type=OpenAPIType.STRING, min_length=1, max_length=1000)
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
        "deviceId": ID,
        "code": _CODE,
        "origin": _ORIGIN,
        "from": TIME,
        "to": TIME,
        "limit": Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=10_000),
        "after": _ID,
    },
    additional_properties=False,
)
_DISMISSAL: Final = an_object("Dismissal", dismissed=COUNT, skipped=COUNT, more=BOOLEAN, next=or_null(_ID))
_DISMISS_REQUEST: Final = Schema(
    type=OpenAPIType.OBJECT,
    properties={**(_REQUEST.properties or {}), "all": BOOLEAN},
    additional_properties=False,
)
_DISMISS_EXAMPLES: Final[dict[str, Any]] = {
    "by id": {"ids": [1, 2, 3]},
    "by code": {"code": "conflict", "to": "2026-01-31T00:00:00Z"},
    "all that wait": {"all": True, "limit": 10_000},
}
_EXAMPLES: Final[dict[str, Any]] = {
    "by code": {"code": "future_timestamp", "limit": 100},
    "by origin": {"origin": "mqtt:", "from": "2026-01-31T00:00:00Z"},
    "by id": {"ids": [1, 2, 3]},
}

_A_LETTER: Final = {
    "id": 1,
    "receivedAt": "2026-01-31T12:00:01.402Z",
    "origin": "http:/v1/telemetry",
    "kind": "vehicle",
    "deviceId": "VH-EXAMPLE",
    "code": "out_of_range",
    "field": "soc",
    "message": "soc must be 0 to 100, not 163.5",
    "raw": '{"vehicleId":"VH-EXAMPLE","soc":163.5}',
    "rawBase64": None,
    "rawSize": 38,
    "truncated": False,
    "replays": 1,
    "replayedAt": "2026-01-31T12:20:00Z",
    "replayError": "soc must be 0 to 100, not 163.5",
    "resolvedAt": None,
}
_A_GROUP: Final = {
    "code": "out_of_range",
    "kind": "vehicle",
    "letters": 1,
    "waiting": 1,
    "rawBytes": 38,
    "oldest": "2026-01-31T12:00:01.402Z",
    "newest": "2026-01-31T12:00:01.402Z",
}
_A_REPORT: Final = {
    "replayed": 1,
    "resolved": 1,
    "stored": 1,
    "duplicates": 0,
    "refused": 0,
    "skipped": 0,
    "results": [
        {
            "id": 1,
            "result": "stored",
            "stored": 1,
            "duplicates": 0,
            "refused": 0,
            "code": None,
            "message": None,
        }
    ],
    "more": False,
    "next": None,
}

LIST: Final = operation(
    {
        "200": json_answer(
            an_object(deadLetters=an_array(_LETTER), next=or_null(_ID)),
            "A page of letters",
            {"deadLetters": [_A_LETTER], "next": None},
        ),
        "400": BAD_PARAMETER,
        "503": DATABASE_AWAY,
    },
    parameters={
        "kind": choice("Only letters of one kind of device", "meter", "vehicle"),
        "deviceId": Told("Only letters of one device", ID),
        "code": Told("Only letters that were refused for one reason, such as out_of_range", _CODE),
        "origin": Told("Only letters that came this way: a prefix such as mqtt: or http:", _ORIGIN),
        "state": choice(
            "Only letters that wait, or only resolved ones; waiting unless given",
            "waiting",
            "resolved",
            "all",
        ),
        "limit": page_size(1000, 100),
        "after": Told("Where the page before ended: its `next`", _ID),
    },
)
SUMMARY: Final = operation(
    {
        "200": json_answer(
            an_object(groups=an_array(_GROUP)), "Counts by code and kind", {"groups": [_A_GROUP]}
        ),
        "503": DATABASE_AWAY,
    }
)
GET: Final = operation(
    {
        "200": json_answer(_LETTER, "The letter", _A_LETTER),
        "400": BAD_PARAMETER,
        "404": problem(
            "There is no such letter (any more)",
            Problem(
                404, "unknown_dead_letter", "there is no dead letter 9: it never was, or has been pruned"
            ),
        ),
        "503": DATABASE_AWAY,
    }
)
REPLAY: Final = operation(
    {
        "200": json_answer(_REPORT, "What came of it", _A_REPORT),
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
DISMISS: Final = operation(
    {
        "200": json_answer(
            _DISMISSAL,
            "How many were dismissed",
            {"dismissed": 1, "skipped": 2, "more": False, "next": None},
        ),
        "400": problem(
            "The body or a filter in it is not valid, or it does not say which letters",
            Problem(
                400,
                "missing",
                'say which letters: ids, filters, or "all": true for all that wait',
                field="all",
            ),
        ),
        **UNREAD,
        "503": DATABASE_AWAY,
    },
    RequestBody(
        required=True,
        content={
            "application/json": OpenAPIMediaType(
                schema=_DISMISS_REQUEST,
                examples={name: Example(value=value) for name, value in _DISMISS_EXAMPLES.items()},
            )
        },
    ),
)

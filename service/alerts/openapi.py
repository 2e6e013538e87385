"""What the OpenAPI document says of the routes of alerts."""

from __future__ import annotations

from typing import Any, Final

from service.web.apidocs import (
    BAD_PARAMETER,
    COUNT,
    DATABASE_AWAY,
    NUMBER,
    STRING,
    TIME,
    Told,
    an_array,
    an_object,
    choice,
    json_answer,
    one_of,
    operation,
    or_null,
    page_size,
)

_FIELDS: Final[dict[str, Any]] = {
    "alertId": COUNT,
    "vehicleId": STRING,
    "meterId": STRING,
    "kind": one_of("low_efficiency", "data_fault"),
    "state": one_of("open", "closed"),
    "openedAt": TIME,
    "closedAt": or_null(TIME),
    "closeReason": or_null(one_of("recovered", "changed", "withdrawn", "stale")),
    "windowStart": TIME,
    "windowEnd": TIME,
    "totalAcConsumedKwh": NUMBER,
    "totalDcDeliveredKwh": NUMBER,
    "ratioAtOpening": or_null(NUMBER),
    "ratioWorst": or_null(NUMBER),
    "ratioLatest": or_null(NUMBER),
    "threshold": NUMBER,
    "coverage": an_object(meter=NUMBER, vehicle=NUMBER),
    "evaluatedUntil": TIME,
}
_PAGE: Final = an_object(alerts=an_array(an_object("Alert", **_FIELDS)), next=or_null(COUNT))

_EXAMPLE: Final = {
    "alertId": 7,
    "vehicleId": "VH-0130",
    "meterId": "METER-0130",
    "kind": "low_efficiency",
    "state": "open",
    "openedAt": "2026-01-31T11:12:20Z",
    "closedAt": None,
    "closeReason": None,
    "windowStart": "2026-01-31T09:00:00Z",
    "windowEnd": "2026-01-31T11:00:00Z",
    "totalAcConsumedKwh": 14.28,
    "totalDcDeliveredKwh": 10.58,
    "ratioAtOpening": 0.746204,
    "ratioWorst": 0.740896,
    "ratioLatest": 0.740896,
    "threshold": 0.85,
    "coverage": {"meter": 1.0, "vehicle": 0.991667},
    "evaluatedUntil": "2026-01-31T11:00:00Z",
}

LIST: Final = operation(
    {
        "200": json_answer(_PAGE, "A page of alerts", {"alerts": [_EXAMPLE], "next": None}),
        "400": BAD_PARAMETER,
        "503": DATABASE_AWAY,
    },
    parameters={
        "state": choice("Only open alerts, or only closed ones; all unless given", "open", "closed", "all"),
        "kind": choice("Only alerts of one kind", "low_efficiency", "data_fault"),
        "limit": page_size(1000, 1000),
        "after": Told("Where the page before ended: its `next`", COUNT),
    },
)

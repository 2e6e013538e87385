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
    an_array,
    an_object,
    json_answer,
    one_of,
    operation,
    or_null,
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

LIST: Final = operation(
    {"200": json_answer(_PAGE, "A page of alerts"), "400": BAD_PARAMETER, "503": DATABASE_AWAY}
)

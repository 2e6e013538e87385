"""What the OpenAPI document says of the ingest routes: we decode their bodies, not the framework."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIType,
    Reference,
    RequestBody,
    Schema,
)

from service.readings import MeterReading, VehicleReading
from service.web.apidocs import an_array, json_answer, operation, problem

METER_EXAMPLE: Final = {
    "meterId": "METER-001",
    "kwhConsumedAc": 0.1234,
    "voltage": 230.4,
    "timestamp": "2026-01-31T12:00:00Z",
}
VEHICLE_EXAMPLE: Final = {
    "vehicleId": "VH-001",
    "soc": 63.5,
    "kwhDeliveredDc": 0.1121,
    "batteryTemp": 28.4,
    "timestamp": "2026-01-31T12:00:00Z",
}
_TYPES: Final = {"number": OpenAPIType.NUMBER, "string": OpenAPIType.STRING}


def _reading_schema(struct: type[MeterReading | VehicleReading]) -> Schema:
    """Derive the schema from the type, so that the document cannot drift from the rules."""
    described: dict[str, Any] = msgspec.json.schema(struct)["$defs"][struct.__name__]
    properties: dict[str, Schema | Reference] = {
        name: Schema(
            type=_TYPES[rules["type"]],
            description=rules.get("description"),
            minimum=rules.get("minimum"),
            maximum=rules.get("maximum"),
            min_length=rules.get("minLength"),
            max_length=rules.get("maxLength"),
            pattern=r"^[A-Za-z0-9._:\-]+$" if "pattern" in rules else None,
            examples=rules.get("examples"),
        )
        for name, rules in described["properties"].items()
    }
    return Schema(
        type=OpenAPIType.OBJECT,
        title=struct.__name__,
        description=described["description"],
        properties=properties,
        required=described["required"],
    )


_METER: Final = _reading_schema(MeterReading)
_VEHICLE: Final = _reading_schema(VehicleReading)


def _array(items: Schema) -> Schema:
    return Schema(type=OpenAPIType.ARRAY, items=items, min_items=1)


def _batch(items: Schema) -> Schema:
    return Schema(type=OpenAPIType.OBJECT, properties={"readings": _array(items)}, required=["readings"])


def _body(schema: Schema, examples: dict[str, Any], *, lines: bool = False) -> RequestBody:
    content = {
        "application/json": OpenAPIMediaType(
            schema=schema, examples={name: Example(value=value) for name, value in examples.items()}
        )
    }
    if lines:
        content["application/x-ndjson"] = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))
    return RequestBody(required=True, content=content)


def _number() -> Schema:
    return Schema(type=OpenAPIType.INTEGER, minimum=0)


_COUNTS: Final = {"accepted": _number(), "duplicates": _number()}
_REJECTED: Final = an_array(
    Schema(
        type=OpenAPIType.OBJECT,
        properties={
            "index": _number(),
            "field": Schema(one_of=[Schema(type=OpenAPIType.STRING), Schema(type=OpenAPIType.NULL)]),
            "code": Schema(type=OpenAPIType.STRING),
            "message": Schema(type=OpenAPIType.STRING),
        },
    )
)
_ONE: Final = json_answer(Schema(type=OpenAPIType.OBJECT, properties=dict(_COUNTS)), "Committed")
_MANY: Final = json_answer(
    Schema(type=OpenAPIType.OBJECT, properties={**_COUNTS, "rejected": _REJECTED}),
    "Committed; what was refused is named by index",
)
_ERRORS: Final = {
    "400": problem("The body cannot be read, or nothing in it could be stored because of what it says"),
    "408": problem("The body did not arrive in time"),
    "413": problem("Too many bytes or readings"),
    "415": problem("Neither JSON nor NDJSON, or an encoding other than gzip"),
    "503": problem("The database is away or the buffer is full: send again after Retry-After seconds"),
}


_READING: Final = Schema(one_of=[_METER, _VEHICLE])

TELEMETRY: Final = operation(
    {"200": _MANY, "201": _ONE, **_ERRORS},
    _body(
        Schema(one_of=[_METER, _VEHICLE, _array(_READING), _batch(_READING)]),
        {"meter": METER_EXAMPLE, "vehicle": VEHICLE_EXAMPLE, "mixed": [METER_EXAMPLE, VEHICLE_EXAMPLE]},
        lines=True,
    ),
)
ONE_METER: Final = operation({"201": _ONE, **_ERRORS}, _body(_METER, {"meter": METER_EXAMPLE}))
ONE_VEHICLE: Final = operation({"201": _ONE, **_ERRORS}, _body(_VEHICLE, {"vehicle": VEHICLE_EXAMPLE}))
MANY_METERS: Final = operation(
    {"200": _MANY, **_ERRORS}, _body(_batch(_METER), {"meters": {"readings": [METER_EXAMPLE]}})
)
MANY_VEHICLES: Final = operation(
    {"200": _MANY, **_ERRORS}, _body(_batch(_VEHICLE), {"vehicles": {"readings": [VEHICLE_EXAMPLE]}})
)

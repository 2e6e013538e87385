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
from service.web.apidocs import COUNT, STRING, an_array, an_object, json_answer, operation, or_null, problem
from service.web.problems import Problem

# Devices of their own: what is tried out must not get among the readings of a real one.
METER_EXAMPLE: Final = {
    "meterId": "METER-EXAMPLE",
    "kwhConsumedAc": 0.1234,
    "voltage": 230.4,
    "timestamp": "2026-01-31T12:00:00Z",
}
VEHICLE_EXAMPLE: Final = {
    "vehicleId": "VH-EXAMPLE",
    "soc": 63.5,
    "kwhDeliveredDc": 0.1121,
    "batteryTemp": 28.4,
    "timestamp": "2026-01-31T12:00:00Z",
}
_BAD_EXAMPLE: Final = {**VEHICLE_EXAMPLE, "soc": 163.5}
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
        each = (msgspec.json.encode(example).decode() for example in (METER_EXAMPLE, VEHICLE_EXAMPLE))
        content["application/x-ndjson"] = OpenAPIMediaType(
            schema=Schema(type=OpenAPIType.STRING), example="\n".join(each)
        )
    return RequestBody(required=True, content=content)


_COUNTS: Final = {"accepted": COUNT, "duplicates": COUNT}
_REJECTED: Final = an_array(
    an_object("Rejected", index=COUNT, field=or_null(STRING), code=STRING, message=STRING)
)
_REFUSED: Final = Problem(
    400, "out_of_range", "soc must be 0 to 100", title="The reading was refused", field="soc"
)
_ONE: Final = json_answer(an_object("Stored", **_COUNTS), "Committed", {"accepted": 1, "duplicates": 0})
_MANY: Final = json_answer(
    an_object("StoredInPart", **_COUNTS, rejected=_REJECTED),
    "Committed; what was refused is named by index",
    {
        "accepted": 1,
        "duplicates": 0,
        "rejected": [{"index": 1, "field": "soc", "code": "out_of_range", "message": "soc must be 0 to 100"}],
    },
)
_ERRORS: Final = {
    "400": problem(
        "The body cannot be read, or nothing in it could be stored because of what it says", _REFUSED
    ),
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
        {
            "meter": METER_EXAMPLE,
            "vehicle": VEHICLE_EXAMPLE,
            "mixed": [METER_EXAMPLE, VEHICLE_EXAMPLE],
            "one of two is refused": [METER_EXAMPLE, _BAD_EXAMPLE],
        },
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

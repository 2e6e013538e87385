"""Examples in the OpenAPI document: composed where no route gives one, and never stale.

Whoever presses "Execute" on the API page sends the examples as they stand there. So their times are moved to
the present when the document is served: a reading of a year ago may be refused, one of this hour is not.
"""

from __future__ import annotations

import re
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from service import __version__
from service.web.problems import CONTENT_TYPE, Problem

# The hour that examples call the current one, and how any of their hours looks.
_HOUR: Final = datetime(2026, 1, 31, 12, tzinfo=UTC)
_ANY_HOUR: Final = re.compile(rb"2026-0[12]-[0-3]\dT[0-2]\d")

# By field name. Energy figures fit together: 14.28 kWh billed, 12.95 delivered.
_VALUES: Final[dict[str, Any]] = {
    "vehicleId": "VH-0001",
    "meterId": "METER-0001",
    "deviceId": "VH-0001",
    "sessionId": "example-2026-01-31T11",
    "next": None,
    "kwhConsumedAc": 0.1234,
    "voltage": 230.4,
    "soc": 63.5,
    "kwhDeliveredDc": 0.1121,
    "batteryTemp": 28.4,
    "timestamp": "2026-01-31T12:00:00Z",
    "lastUpdated": "2026-01-31T12:00:00.314Z",
    "time": "2026-01-31T12:00:03.271Z",
    "periodStart": "2026-01-30T12:00:00Z",
    "periodEnd": "2026-01-31T12:00:00Z",
    "start": "2026-01-31T11:00:00Z",
    "end": "2026-01-31T12:00:00Z",
    "totalAcConsumedKwh": 14.28,
    "totalDcDeliveredKwh": 12.95,
    "energyLossKwh": 1.33,
    "efficiencyRatio": 0.906863,
    "belowThreshold": False,
    "threshold": 0.85,
    "charging": 70,
    "avgBatteryTemp": 27.9,
    "minBatteryTemp": 24.5,
    "maxBatteryTemp": 31.0,
    "firstSoc": 41.5,
    "lastSoc": 63.5,
    "minSoc": 41.5,
    "maxSoc": 63.5,
    "vehicle": 1440,
    "meter": 1440,
    "vehicles": 200,
    "meters": 200,
    "known": 200,
    "reporting": 198,
    "open": 2,
    "acKw": 512.4,
    "dcKw": 466.1,
    "seconds": 60.0,
    "meteredAcKwh": 14.28,
    "avgVoltage": 228.9,
    "minVoltage": 226.4,
    "maxVoltage": 231.2,
    "startedAt": "2026-01-31T09:10:00Z",
    "endedAt": "2026-01-31T11:30:00Z",
    "expiresAt": "2026-02-01T00:00:00Z",
    "name": "dashboard",
    "scopes": "read",
    "readingsPerSecond": 6.7,
    "lagMeanSeconds": 0.9,
    "lagMaxSeconds": 2.1,
    "staleHours": 0,
    "failures": 0,
    "failedAt": None,
    "lastError": None,
    "bytes": 41_943_040,
    "chunks": 2,
    "accepted": 2,
    "duplicates": 0,
    "conflicts": 0,
    "total": 0,
    "index": 1,
    "status": "ok",
    "service": "fleetwatt",
    "version": __version__,
    "breaker": "closed",
    "replica": "ok",
    "source": "http",
}
# Objects whose fields have no fixed names.
_KEYS: Final = {
    "sources": "mqtt",
    "byCode": "out_of_range",
    "rollups": "vehicle",
    "storage": "vehicle_reading",
}
_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_PLAIN: Final[dict[str, Any]] = {"string": "...", "integer": 1, "number": 1.0, "boolean": True, "null": None}
# What an answer with a status looks like when the route does not say it.
_PROBLEMS: Final = {
    "400": Problem(400, "bad_parameter", "from lies after to", field="from"),
    "400 body": Problem(400, "malformed_json", "the body is not valid JSON: Input data was truncated"),
    "401": Problem(
        401,
        "missing_key",
        "this service takes no request without a key: send a key: Authorization: Bearer fw_...",
        title="A good key is needed",
    ),
    "403": Problem(
        403,
        "not_allowed",
        "the key w4zk0yq9xbtn may not do that: it takes a key with the scope admin",
        title="The key is not good for this",
    ),
    "404": Problem(404, "unknown_device", "no vehicle 'VH-9999' has ever reported"),
    "408": Problem(408, "body_timeout", "the body did not arrive within 20 s: send less at once"),
    "413": Problem(413, "too_large", "the body has more than 16777216 bytes: send less at once"),
    "414": Problem(414, "url_too_long", "the address has more than 8192 bytes"),
    "415": Problem(
        415,
        "unsupported_media_type",
        "content type 'text/plain' is not supported: send application/json or application/x-ndjson",
        field="content-type",
    ),
    "421": Problem(
        421,
        "misdirected",
        "this service does not answer for that host: use its own address, "
        "or have the host added to FLEETWATT_HTTP_HOSTS",
        field="host",
    ),
    "429": Problem(429, "too_many_requests", "this key has made too many requests"),
    "503": Problem(503, "unavailable", "the database is not available; try again soon"),
}


def compose(schema: dict[str, Any], name: str = "") -> Any:
    """Compose a value that a schema allows; `name` is the field's, by which values are chosen."""
    if "oneOf" in schema:
        choices = schema["oneOf"]
        if _VALUES.get(name, ...) is None and any(choice.get("type") == "null" for choice in choices):
            return None
        return compose(choices[0], name)
    if "enum" in schema:
        words = schema["enum"]
        return _VALUES[name] if _VALUES.get(name) in words else words[0]
    match schema.get("type"):
        case "object" if "properties" in schema:
            properties = schema["properties"]
            required = schema.get("required", [])
            # Of those that may be absent only the first: often one of them excludes the others.
            shown = {*required, *[field for field in properties if field not in required][:1]}
            return {field: compose(properties[field], field) for field in properties if field in shown}
        case "object":
            return {_KEYS.get(name, "name"): compose(schema.get("additionalProperties", {}), "")}
        case "array":
            return [compose(schema.get("items", {}), name)]
        case kind:
            return _leaf(str(kind), schema, name)


def _leaf(kind: str, schema: dict[str, Any], name: str) -> Any:
    value = _VALUES.get(name)
    if value is not None and isinstance(value, _TYPES.get(kind, ())):
        return value
    return _VALUES["timestamp"] if schema.get("format") == "date-time" else _PLAIN.get(kind)


def filled(raw: dict[str, Any]) -> dict[str, Any]:
    """Give the document with an example of each answer, and each schema that has a title once."""
    document: dict[str, Any] = deepcopy(raw)
    for item in document["paths"].values():
        for said in item.values():
            for status, told in said["responses"].items():
                for media_type, media in told.get("content", {}).items():
                    _fill(media, f"{status} body" if "requestBody" in said else status, media_type)
    schemas: dict[str, Any] = {}
    document["paths"] = _named(document["paths"], schemas)
    known = document.setdefault("components", {}).setdefault("schemas", {})
    known |= dict(sorted(schemas.items()))
    return document


def _named(value: Any, schemas: dict[str, Any]) -> Any:
    """Put references in place of schemas with a title, and the schemas themselves aside."""
    if isinstance(value, list):
        return [_named(part, schemas) for part in value]
    if not isinstance(value, dict):
        return value
    inner = {
        name: part if name in {"example", "examples"} else _named(part, schemas)
        for name, part in value.items()
    }
    title = inner.get("title")
    if inner.get("type") != "object" or not isinstance(title, str) or "properties" not in inner:
        return inner
    if schemas.setdefault(title, inner) != inner:
        raise ValueError(f"two schemas of the document have the title {title!r}")
    return {"$ref": f"#/components/schemas/{title}"}


def _fill(media: dict[str, Any], status: str, media_type: str) -> None:
    if media_type == "application/json":
        given = media.get("example")
        media["example"] = compose(media["schema"]) if given is None else msgspec.json.decode(given)
    elif "example" in media or "examples" in media:
        return
    elif media_type == CONTENT_TYPE:
        told = _PROBLEMS.get(status) or _PROBLEMS[status.partition(" ")[0]]
        media["example"] = msgspec.json.decode(told.body())


def fresh(document: bytes, now: datetime) -> bytes:
    """Move each time in the document's text so that its current hour is the one of `now`, in UTC."""
    shift = now.replace(minute=0, second=0, microsecond=0) - _HOUR

    def move(found: re.Match[bytes]) -> bytes:
        hour = datetime.strptime(found[0].decode(), "%Y-%m-%dT%H").replace(tzinfo=UTC)
        return (hour + shift).strftime("%Y-%m-%dT%H").encode()

    return _ANY_HOUR.sub(move, document)

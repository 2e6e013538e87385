"""What the OpenAPI document says of the read routes."""

from __future__ import annotations

from typing import Final

from litestar.openapi.spec import OpenAPIType, Schema

from service.web.apidocs import (
    BAD_PARAMETER,
    BOOLEAN,
    COUNT,
    DATABASE_AWAY,
    NUMBER,
    STRING,
    TIME,
    UNKNOWN_DEVICE,
    an_array,
    an_object,
    choice,
    json_answer,
    lacking,
    operation,
    or_null,
    page_size,
)

_METER: Final = an_object(
    "MeterState", meterId=STRING, kwhConsumedAc=NUMBER, voltage=NUMBER, timestamp=TIME, lastUpdated=TIME
)
_VEHICLE: Final = an_object(
    "VehicleState",
    vehicleId=STRING,
    soc=NUMBER,
    kwhDeliveredDc=NUMBER,
    batteryTemp=NUMBER,
    timestamp=TIME,
    lastUpdated=TIME,
)
_ENERGY: Final = {
    "totalAcConsumedKwh": NUMBER,
    "totalDcDeliveredKwh": NUMBER,
    "energyLossKwh": NUMBER,
    "efficiencyRatio": or_null(NUMBER),
    "belowThreshold": BOOLEAN,
}
_PERIOD: Final = {"periodStart": TIME, "periodEnd": TIME}
_PERFORMANCE: Final = an_object(
    "Performance",
    vehicleId=STRING,
    **_PERIOD,
    **_ENERGY,
    avgBatteryTemp=or_null(NUMBER),
    readingsCount=an_object(vehicle=COUNT, meter=COUNT),
    threshold=NUMBER,
)
_READINGS: Final = an_object(vehicle=COUNT, meter=COUNT)
_INTERVAL: Final = {"start": TIME, "end": TIME, **_ENERGY, "readingsCount": _READINGS}
_FLEET: Final = lacking(
    an_object(
        "Fleet",
        **_PERIOD,
        charging=COUNT,
        threshold=NUMBER,
        **_ENERGY,
        vehicles=an_array(an_object(vehicleId=STRING, **_ENERGY, readingsCount=_READINGS)),
        meters=an_array(an_object(meterId=STRING, **_ENERGY, readingsCount=_READINGS)),
        hours=an_array(an_object(**_INTERVAL)),
        days=an_array(an_object(**_INTERVAL)),
    ),
    "vehicles",
    "meters",
    "hours",
    "days",
)
_VEHICLE_INTERVAL: Final = an_object(
    **_INTERVAL,
    **dict.fromkeys(
        ("avgBatteryTemp", "minBatteryTemp", "maxBatteryTemp", "firstSoc", "lastSoc", "minSoc", "maxSoc"),
        or_null(NUMBER),
    ),
)
_HOURLY: Final = lacking(
    an_object(
        "VehicleSeries",
        vehicleId=STRING,
        **_PERIOD,
        threshold=NUMBER,
        hours=an_array(_VEHICLE_INTERVAL),
        days=an_array(_VEHICLE_INTERVAL),
    ),
    "hours",
    "days",
)
_METER_INTERVAL: Final = an_object(
    **_INTERVAL,
    meteredAcKwh=NUMBER,
    **dict.fromkeys(("avgVoltage", "minVoltage", "maxVoltage"), or_null(NUMBER)),
)
_METER_HOURLY: Final = lacking(
    an_object(
        "MeterSeries",
        meterId=STRING,
        **_PERIOD,
        threshold=NUMBER,
        hours=an_array(_METER_INTERVAL),
        days=an_array(_METER_INTERVAL),
    ),
    "hours",
    "days",
)
_SESSION: Final = an_object(
    "SessionEnergy",
    sessionId=STRING,
    vehicleId=STRING,
    meterId=STRING,
    startedAt=TIME,
    endedAt=or_null(TIME),
    **_ENERGY,
    readingsCount=_READINGS,
    meteredAcKwh=NUMBER,
)
_OVERVIEW: Final = an_object(
    "Overview",
    asOf=TIME,
    vehicles=an_object(known=COUNT, reporting=COUNT, charging=COUNT),
    meters=an_object(known=COUNT, reporting=COUNT),
    power=an_object(acKw=NUMBER, dcKw=NUMBER, seconds=NUMBER),
    today=an_object(**_PERIOD, **_ENERGY),
    threshold=NUMBER,
    alerts=an_object(open=COUNT),
    ingest=an_object(readingsPerSecond=NUMBER, lagMeanSeconds=or_null(NUMBER)),
    newestReadingAt=or_null(TIME),
)
_COUNTS: Final = an_object(accepted=COUNT, duplicates=COUNT, conflicts=COUNT)


def _by_name(items: Schema, description: str) -> Schema:
    return Schema(type=OpenAPIType.OBJECT, additional_properties=items, description=description)


_SOURCE: Final = an_object(
    readingsPerSecond=NUMBER, lagMeanSeconds=or_null(NUMBER), lagMaxSeconds=or_null(NUMBER)
)
_FRESHNESS: Final = an_object(
    refreshedUntil=or_null(TIME),
    refreshedAt=or_null(TIME),
    staleHours=COUNT,
    failures=COUNT,
    failedAt=or_null(TIME),
    lastError=or_null(STRING),
)
_STATS: Final = an_object(
    "Stats",
    time=TIME,
    devices=an_object(meters=COUNT, vehicles=COUNT),
    newestReading=an_object(meter=or_null(TIME), vehicle=or_null(TIME)),
    readings=an_object(meter=_COUNTS, vehicle=_COUNTS),
    ingest=an_object(readingsPerSecond=NUMBER, sources=_by_name(_SOURCE, "mqtt, http, import")),
    deadLetters=an_object(total=COUNT, byCode=_by_name(COUNT, "Refusals by reason code")),
    rollups=_by_name(_FRESHNESS, "meter, vehicle"),
    storage=_by_name(an_object(bytes=COUNT, chunks=COUNT), "By hypertable"),
)
_PAGE: Final = {"limit": page_size(10_000, 1000)}
_WIDTH: Final = choice("Length of the intervals; hour unless given", "hour", "day")
_ERRORS: Final = {"400": BAD_PARAMETER, "503": DATABASE_AWAY}
_OF_A_DEVICE: Final = {**_ERRORS, "404": UNKNOWN_DEVICE}

METER_CURRENT: Final = operation({"200": json_answer(_METER, "The newest reading"), **_OF_A_DEVICE})
VEHICLE_CURRENT: Final = operation({"200": json_answer(_VEHICLE, "The newest reading"), **_OF_A_DEVICE})
METER_STATES: Final = operation(
    {"200": json_answer(an_object(meters=an_array(_METER), next=or_null(STRING)), "A page"), **_ERRORS},
    parameters=_PAGE,
)
VEHICLE_STATES: Final = operation(
    {"200": json_answer(an_object(vehicles=an_array(_VEHICLE), next=or_null(STRING)), "A page"), **_ERRORS},
    parameters=_PAGE,
)
PERFORMANCE: Final = operation({"200": json_answer(_PERFORMANCE, "The energy summary"), **_OF_A_DEVICE})
HOURLY: Final = operation(
    {"200": json_answer(_HOURLY, "The series: hours or, with by=day, days"), **_OF_A_DEVICE},
    parameters={"by": _WIDTH},
)
METER_HOURLY: Final = operation(
    {"200": json_answer(_METER_HOURLY, "The series: hours or, with by=day, days"), **_OF_A_DEVICE},
    parameters={"by": _WIDTH},
)
SESSIONS: Final = operation(
    {
        "200": json_answer(an_object(sessions=an_array(_SESSION), next=or_null(STRING)), "A page"),
        **_OF_A_DEVICE,
    },
    parameters={"limit": page_size(500, 50)},
)
OVERVIEW: Final = operation({"200": json_answer(_OVERVIEW, "The fleet as of asOf"), **_ERRORS})
FLEET: Final = operation(
    {"200": json_answer(_FLEET, "The fleet's balance, with the one list that `by` asks for"), **_ERRORS},
    parameters={
        "by": choice("The list to give; vehicle unless given", "vehicle", "meter", "hour", "day"),
        "limit": page_size(10_000, 20),
    },
)
STATS: Final = operation({"200": json_answer(_STATS, "Figures"), "503": DATABASE_AWAY})

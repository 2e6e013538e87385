"""The two streams of readings: their tables, how a reading becomes a row, and their named queries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, LiteralString, NamedTuple

from service.readings import Kind, MeterReading, VehicleReading
from service.sql import query


class Stream(NamedTuple):
    """How readings of one kind are written.

    `rows` gives the COPY text of readings; `columns` gives their values as one list per column, under
    the parameter names that the three queries use.
    """

    kind: Kind
    copy: LiteralString
    rows: Callable[[list[Any]], str]
    columns: Callable[[list[Any]], dict[str, list[Any]]]
    insert_new: LiteralString
    compare: LiteralString
    upsert_state: LiteralString


def _utc(moment: datetime) -> datetime:
    """Give the moment in UTC: PostgreSQL does not read every offset that RFC 3339 can write."""
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


# Text rows by hand: ids hold nothing that COPY would have to escape, repr() of a float is exact, and one
# string for the whole batch costs a third of psycopg's value-by-value adaptation.
def _meter_rows(readings: list[MeterReading]) -> str:
    return "".join(
        [
            f"{r.device_id}\t{_utc(r.recorded_at).isoformat()}\t{r.kwh_consumed_ac!r}\t{r.voltage!r}\n"
            for r in readings
        ]
    )


def _vehicle_rows(readings: list[VehicleReading]) -> str:
    return "".join(
        [
            f"{r.device_id}\t{_utc(r.recorded_at).isoformat()}\t{r.soc!r}\t{r.kwh_delivered_dc!r}\t{r.battery_temp!r}\n"
            for r in readings
        ]
    )


def _meter_columns(readings: list[MeterReading]) -> dict[str, list[Any]]:
    return {
        "ids": [r.device_id for r in readings],
        "times": [_utc(r.recorded_at) for r in readings],
        "kwh": [r.kwh_consumed_ac for r in readings],
        "voltage": [r.voltage for r in readings],
    }


def _vehicle_columns(readings: list[VehicleReading]) -> dict[str, list[Any]]:
    return {
        "ids": [r.device_id for r in readings],
        "times": [_utc(r.recorded_at) for r in readings],
        "soc": [r.soc for r in readings],
        "kwh": [r.kwh_delivered_dc for r in readings],
        "battery_temp": [r.battery_temp for r in readings],
    }


METER: Final = Stream(
    kind="meter",
    copy="COPY meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage) FROM STDIN",
    rows=_meter_rows,
    columns=_meter_columns,
    insert_new=query("insert_new_meter_readings"),
    compare=query("compare_meter_readings"),
    upsert_state=query("upsert_meter_state"),
)
VEHICLE: Final = Stream(
    kind="vehicle",
    copy="COPY vehicle_reading (vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp) FROM STDIN",
    rows=_vehicle_rows,
    columns=_vehicle_columns,
    insert_new=query("insert_new_vehicle_readings"),
    compare=query("compare_vehicle_readings"),
    upsert_state=query("upsert_vehicle_state"),
)

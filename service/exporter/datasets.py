"""What can be exported: its query, its columns with their units, and in which parts it is read."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Literal, LiteralString, NamedTuple

from service.sql import query

Type = Literal["id", "time", "number", "count"]


class Column(NamedTuple):
    """A column: its name in CSV and Parquet, its name in NDJSON, its type, and its unit ("" for none)."""

    name: str
    json_name: str
    type: Type
    unit: str = ""


class Dataset(NamedTuple):
    """One thing to export.

    `relations` hold it and have chunks, by which parts of the window without data are left out; without any,
    it is read in one part. `part` is how much time is read at once. Of rollups, `bin_` is the width: those
    that start in the window are exported.
    """

    query: LiteralString
    columns: tuple[Column, ...]
    relations: tuple[str, ...] = ()
    part: timedelta = timedelta(days=1)
    bin_: timedelta | None = None


_METER: Final = Column("meter_id", "meterId", "id")
_VEHICLE: Final = Column("vehicle_id", "vehicleId", "id")
_TIME: Final = Column("recorded_at", "timestamp", "time", "UTC")
_HOUR: Final = Column("hour", "hour", "time", "UTC")
_DAY: Final = Column("day", "day", "time", "UTC")
_METER_SUMS: Final = (
    Column("readings", "readings", "count"),
    Column("kwh_ac", "kwhAc", "number", "kWh"),
    Column("kwh_ac_max", "kwhAcMax", "number", "kWh"),
    Column("voltage_sum", "voltageSum", "number", "V"),
    Column("voltage_min", "voltageMin", "number", "V"),
    Column("voltage_max", "voltageMax", "number", "V"),
)
_VEHICLE_SUMS: Final = (
    Column("readings", "readings", "count"),
    Column("kwh_dc", "kwhDc", "number", "kWh"),
    Column("kwh_dc_max", "kwhDcMax", "number", "kWh"),
    Column("battery_temp_sum", "batteryTempSum", "number", "degrees Celsius"),
    Column("battery_temp_min", "batteryTempMin", "number", "degrees Celsius"),
    Column("battery_temp_max", "batteryTempMax", "number", "degrees Celsius"),
    Column("soc_min", "socMin", "number", "percent"),
    Column("soc_max", "socMax", "number", "percent"),
    Column("soc_first", "socFirst", "number", "percent"),
    Column("soc_last", "socLast", "number", "percent"),
)
_HOURS: Final = timedelta(hours=1)
_DAYS: Final = timedelta(days=1)

DATASETS: Final = {
    "meter": Dataset(
        query("export_meter_readings"),
        (
            _METER,
            _TIME,
            Column("kwh_consumed_ac", "kwhConsumedAc", "number", "kWh"),
            Column("voltage", "voltage", "number", "V"),
        ),
        ("meter_reading",),
    ),
    "vehicle": Dataset(
        query("export_vehicle_readings"),
        (
            _VEHICLE,
            _TIME,
            Column("soc", "soc", "number", "percent"),
            Column("kwh_delivered_dc", "kwhDeliveredDc", "number", "kWh"),
            Column("battery_temp", "batteryTemp", "number", "degrees Celsius"),
        ),
        ("vehicle_reading",),
    ),
    "meter-hourly": Dataset(
        query("export_meter_hours"),
        (_METER, _HOUR, *_METER_SUMS),
        ("meter_hourly_stored", "meter_reading"),
        bin_=_HOURS,
    ),
    "vehicle-hourly": Dataset(
        query("export_vehicle_hours"),
        (_VEHICLE, _HOUR, *_VEHICLE_SUMS),
        ("vehicle_hourly_stored", "vehicle_reading"),
        bin_=_HOURS,
    ),
    "meter-daily": Dataset(
        query("export_meter_days"),
        (_METER, _DAY, *_METER_SUMS),
        ("meter_daily_stored", "meter_hourly_stored", "meter_reading"),
        part=timedelta(days=10),
        bin_=_DAYS,
    ),
    "vehicle-daily": Dataset(
        query("export_vehicle_days"),
        (_VEHICLE, _DAY, *_VEHICLE_SUMS),
        ("vehicle_daily_stored", "vehicle_hourly_stored", "vehicle_reading"),
        part=timedelta(days=10),
        bin_=_DAYS,
    ),
    "sessions": Dataset(
        query("export_sessions"),
        (
            Column("session_id", "sessionId", "id"),
            _VEHICLE,
            _METER,
            Column("started_at", "startedAt", "time", "UTC"),
            Column("ended_at", "endedAt", "time", "UTC"),
        ),
    ),
}

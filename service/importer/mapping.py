"""Rows to readings: which column (or constant) is which field, and what is wrong with a row that is none.

The rules on values are those of service.readings, applied by its types; here is only how the cells are
read. A whole block is validated in one call; only when that fails is each row looked at by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, cast

import msgspec

from service.errors import ImportFileError
from service.importer.clock import Clock, zone_of
from service.importer.columns import Columns, ReadNumber, id_reader, is_device_id, number_reader, text_reader
from service.importer.dialect import Row
from service.importer.refusal import CellError, Refusal
from service.readings import DeviceId, Kind, MeterReading, Reading, TimeRule, VehicleReading, ids_are_good

# Columns taken when no option names one: the names in JSON and in the database, and the plain word.
_ID_COLUMNS: Final[dict[Kind, tuple[str, ...]]] = {
    "meter": ("meterId", "meter_id"),
    "vehicle": ("vehicleId", "vehicle_id"),
}
_TIME_COLUMNS: Final = ("timestamp", "recorded_at", "time")
_KWH_COLUMNS: Final[dict[Kind, tuple[str, ...]]] = {
    "meter": ("kwhConsumedAc", "kwh_consumed_ac", "kwh"),
    "vehicle": ("kwhDeliveredDc", "kwh_delivered_dc", "kwh"),
}
_OTHER_COLUMNS: Final = {
    "voltage": ("voltage",),
    "soc": ("soc",),
    "battery_temp": ("batteryTemp", "battery_temp"),
}
_STRUCTS: Final[dict[Kind, type[MeterReading | VehicleReading]]] = {
    "meter": MeterReading,
    "vehicle": VehicleReading,
}
_ENERGY: Final[dict[Kind, str]] = {"meter": "kwh_consumed_ac", "vehicle": "kwh_delivered_dc"}
_FOREIGN: Final[dict[Kind, tuple[str, ...]]] = {"meter": ("soc", "battery_temp"), "vehicle": ("voltage",)}


class Mapping(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say about columns; None where they say nothing.

    Each text is a column's name or a constant `=VALUE`; `time` is a column, or several joined by commas.
    Energy comes from `kwh`, from `wh`, or from `kw`, the mean power over the `every_s` seconds that the
    timestamp closes. `tz` is the zone of times that have none.
    """

    meter_id: str | None = None
    vehicle_id: str | None = None
    time: str | None = None
    time_format: str | None = None
    tz: str | None = None
    kwh: str | None = None
    wh: str | None = None
    kw: str | None = None
    every_s: float | None = None
    voltage: str | None = None
    soc: str | None = None
    battery_temp: str | None = None
    decimal_comma: bool = False

    def check(self) -> None:
        """Raise ImportFileError for options that contradict each other, whatever the file."""
        if self.meter_id is not None and self.vehicle_id is not None:
            raise ImportFileError(
                "a file holds meters or vehicles: give --meter-id or --vehicle-id, not both"
            )
        energy = [name for name in ("kwh", "wh", "kw") if getattr(self, name) is not None]
        if len(energy) > 1:
            raise ImportFileError(f"energy comes from one place: --{energy[0]} or --{energy[1]}, not both")
        if (self.kw is None) != (self.every_s is None):
            raise ImportFileError("power becomes energy by its interval: give --kw and --every together")
        if self.every_s is not None and self.every_s <= 0:
            raise ImportFileError("--every must be longer than 0 s")

    @property
    def given(self) -> list[str]:
        """The options that were given, as they are written on the command line."""
        names = [name for name in self.__struct_fields__ if getattr(self, name) not in (None, False)]
        return ["--" + name.removesuffix("_s").replace("_", "-") for name in names]


class RowReader:
    """A mapping bound to the header of a file. Keeps the clock's memory, so rows come in file order.

    Raises ImportFileError for a mapping that this header cannot fulfil.
    """

    def __init__(self, mapping: Mapping, header: Sequence[str]) -> None:
        mapping.check()
        columns = Columns(header)
        self._columns = columns
        self.kind, id_text = _identity(mapping, columns)
        self._struct = _STRUCTS[self.kind]
        self._many = list[self._struct]  # type: ignore[name-defined]
        self._fields = {field.name: field for field in msgspec.structs.fields(self._struct)}
        self._id_field = self._fields["device_id"].encode_name
        self._time_field = self._fields["recorded_at"].encode_name
        self._read_id = id_reader(columns, id_text, f"--{self.kind}-id", self._id_field)
        self._read_time = text_reader(columns, _time_columns(mapping, columns), "--time", self._time_field)
        self._clock = Clock(mapping.time_format, zone_of(mapping.tz) if mapping.tz else None)
        self._numbers = self._number_readers(mapping, columns)

    def read(self, rows: Sequence[Row | None], rule: TimeRule) -> list[Reading | Refusal]:
        """Turn each row into a reading or a refusal, in the same order. None is a line that is no row."""
        results: list[Reading | Refusal | None] = [None] * len(rows)
        values: list[dict[str, Any]] = []
        places: list[int] = []
        for place, row in enumerate(rows):
            try:
                values.append(self._values(row))
                places.append(place)
            except CellError as error:
                results[place] = Refusal(error.field, error.code, error.message, self._device_of(row))
        earliest, latest = rule.window()
        for place, reading in zip(places, self._convert(values), strict=True):
            results[place] = reading
            if not isinstance(reading, Refusal) and not earliest <= reading.recorded_at <= latest:
                results[place] = self._out_of_time(reading, ahead=reading.recorded_at > latest)
        return cast("list[Reading | Refusal]", results)

    def _values(self, row: Row | None) -> dict[str, Any]:
        """Read the cells of a row under the names in JSON; raises CellError."""
        row = self._columns.check(row)
        device_id = self._read_id(row)
        values: dict[str, Any] = {
            self._id_field: device_id,
            self._time_field: self._clock.read(device_id, self._read_time(row)),
        }
        for name, number in self._numbers:
            values[name] = number(row)
        return values

    def _convert(self, values: list[dict[str, Any]]) -> Sequence[Reading | Refusal]:
        if ids_are_good(row[self._id_field] for row in values):
            with suppress(msgspec.ValidationError):
                return cast("list[Reading | Refusal]", msgspec.convert(values, self._many, strict=True))
        return [self._convert_one(row) for row in values]

    def _convert_one(self, values: dict[str, Any]) -> Reading | Refusal:
        try:
            msgspec.convert(values[self._id_field], DeviceId)
            return msgspec.convert(values, self._struct, strict=True)
        except msgspec.ValidationError as error:
            return self._blame(values, error)

    def _blame(self, values: dict[str, Any], error: msgspec.ValidationError) -> Refusal:
        """Name the field whose rule a row breaks, in the words and codes of service.ingest.decode."""
        device_id = values[self._id_field]
        if not is_device_id(device_id):
            message = f"the id {device_id[:80]!r} must be 1 to 64 characters of A-Z a-z 0-9 . _ : -"
            return Refusal(self._id_field, "bad_id", message)
        for field in self._fields.values():
            try:
                msgspec.convert(values[field.encode_name], field.type, strict=True)
            except msgspec.ValidationError as reason:
                shown = f"{values[field.encode_name]} is out of range: {reason}"
                return Refusal(field.encode_name, "out_of_range", shown, device_id)
        return Refusal(None, "out_of_range", str(error), device_id)

    def _out_of_time(self, reading: Reading, *, ahead: bool) -> Refusal:
        code = "future_timestamp" if ahead else "too_old"
        what = "lies in the future" if ahead else "is older than what is kept"
        return Refusal(self._time_field, code, f"{reading.recorded_at.isoformat()} {what}", reading.device_id)

    def _device_of(self, row: Row | None) -> str | None:
        """Give the device of a refused row, if it can be read; a row of shifted columns is nobody's."""
        if row is None or len(row) < len(self._columns.names):
            return None
        try:
            device_id = self._read_id(row)
        except CellError:
            return None
        return device_id if is_device_id(device_id) else None

    def _number_readers(self, mapping: Mapping, columns: Columns) -> list[tuple[str, ReadNumber]]:
        option, text, divisor = _energy(mapping, columns, self.kind)
        wanted = [(_ENERGY[self.kind], option, text, divisor)]
        for name, defaults in _OTHER_COLUMNS.items():
            option = "--" + name.replace("_", "-")
            if name in self._fields:
                wanted.append((name, option, _named(getattr(mapping, name), defaults, columns, option), 1.0))
        for name in _FOREIGN[self.kind]:
            if getattr(mapping, name) is not None:
                raise ImportFileError(f"--{name.replace('_', '-')} does not belong to a {self.kind}")
        return [
            (
                self._fields[name].encode_name,
                number_reader(
                    columns,
                    text,
                    option,
                    self._fields[name],
                    divisor=divisor,
                    decimal_comma=mapping.decimal_comma,
                ),
            )
            for name, option, text, divisor in wanted
        ]


def _named(text: str | None, defaults: Sequence[str], columns: Columns, option: str) -> str:
    """Give what an option says or, if it says nothing, the column with a usual name."""
    found = text if text is not None else columns.first_of(defaults)
    if found is None:
        raise ImportFileError(f"say with {option} which column to take; {columns.listed()}")
    return found


def _identity(mapping: Mapping, columns: Columns) -> tuple[Kind, str]:
    """Tell meters from vehicles, and where their id comes from."""
    if mapping.meter_id is not None:
        return "meter", mapping.meter_id
    if mapping.vehicle_id is not None:
        return "vehicle", mapping.vehicle_id
    kinds: tuple[Kind, Kind] = ("meter", "vehicle")
    found = [(kind, name) for kind in kinds if (name := columns.first_of(_ID_COLUMNS[kind]))]
    if len(found) != 1:
        raise ImportFileError(
            f"say with --meter-id or --vehicle-id whose readings these are; {columns.listed()}"
        )
    return found[0]


def _time_columns(mapping: Mapping, columns: Columns) -> list[str]:
    text = _named(mapping.time, _TIME_COLUMNS, columns, "--time")
    return [text] if text in columns else [name.strip() for name in text.split(",")]


def _energy(mapping: Mapping, columns: Columns, kind: Kind) -> tuple[str, str, float]:
    """Give the option, its text, and what to divide by to get kWh."""
    if mapping.kw is not None and mapping.every_s is not None:
        # kWh = kW * s / 3600. Dividing by 3600/s rounds once where that is whole: kW/60 for a minute.
        return "--kw", mapping.kw, 3600 / mapping.every_s
    if mapping.wh is not None:
        return "--wh", mapping.wh, 1000.0
    return "--kwh", _named(mapping.kwh, _KWH_COLUMNS[kind], columns, "--kwh, --wh or --kw"), 1.0

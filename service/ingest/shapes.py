"""The shapes of the two kinds of readings: their decoders, whole and by field, derived from the types."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final, cast

import msgspec

from service.readings import (
    DeviceId,
    EnergyKwh,
    Kind,
    MeterReading,
    Reading,
    SocPercent,
    TemperatureC,
    Timestamp,
    UncheckedId,
    VehicleReading,
    VoltageV,
    ids_are_good,
)

# What msgspec and Python raise for bytes that are no JSON of the wanted type, or are nested too deeply.
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class Field(msgspec.Struct, frozen=True):
    """One field of a reading: its JSON name, and decoders with and without the rules on its value."""

    name: str
    bounds: str
    strict: msgspec.json.Decoder[Any]
    loose: msgspec.json.Decoder[Any]


class Shape:
    """How readings of one kind are decoded, whole and, to explain a refusal, by field."""

    def __init__(self, kind: Kind, struct: type[MeterReading | VehicleReading], id_name: str) -> None:
        self.kind = kind
        self.struct = struct
        self.id_name = id_name
        self._one: msgspec.json.Decoder[Reading] = msgspec.json.Decoder(struct)
        self._many: msgspec.json.Decoder[list[Reading]] = msgspec.json.Decoder(list[struct])  # type: ignore[valid-type]
        self.fields = [
            Field(
                field.encode_name,
                _bounds(rules),
                msgspec.json.Decoder(rules),
                msgspec.json.Decoder(_bare(rules)),
            )
            for field in msgspec.structs.fields(struct)
            for rules in [DeviceId if field.name == "device_id" else field.type]
        ]

    def one(self, body: bytes) -> Reading:
        """Decode a reading; raises UNREADABLE."""
        return _checked([self._one.decode(body)])[0]

    def many(self, body: bytes, *, lines: bool) -> list[Reading]:
        """Decode an array of readings, or lines of one each; raises UNREADABLE."""
        return _checked(self._one.decode_lines(body) if lines else self._many.decode(body))


class Either(msgspec.Struct, gc=False, rename="camel"):
    """A reading of either kind, as long as it has nothing that contradicts the other: for mixed payloads."""

    timestamp: Timestamp
    meter_id: UncheckedId | msgspec.UnsetType = msgspec.UNSET
    kwh_consumed_ac: EnergyKwh | msgspec.UnsetType = msgspec.UNSET
    voltage: VoltageV | msgspec.UnsetType = msgspec.UNSET
    vehicle_id: UncheckedId | msgspec.UnsetType = msgspec.UNSET
    soc: SocPercent | msgspec.UnsetType = msgspec.UNSET
    kwh_delivered_dc: EnergyKwh | msgspec.UnsetType = msgspec.UNSET
    battery_temp: TemperatureC | msgspec.UnsetType = msgspec.UNSET

    def reading(self) -> Reading | None:
        """Give the reading that it is, None if it is both, or neither, or not whole."""
        values: list[Any]
        if self.vehicle_id is msgspec.UNSET:
            values = [self.meter_id, self.timestamp, self.kwh_consumed_ac, self.voltage]
            return None if msgspec.UNSET in values else MeterReading(*values)
        values = [self.vehicle_id, self.timestamp, self.soc, self.kwh_delivered_dc, self.battery_temp]
        return (
            None if self.meter_id is not msgspec.UNSET or msgspec.UNSET in values else VehicleReading(*values)
        )


_EITHERS: Final = msgspec.json.Decoder(list[Either])
_EITHER: Final = msgspec.json.Decoder(Either)
_id: Final = attrgetter("device_id")


def of_both_kinds(body: bytes, *, lines: bool) -> list[Reading]:
    """Decode an array of readings of any kind, or lines of one each; raises UNREADABLE."""
    either = _EITHER.decode_lines(body) if lines else _EITHERS.decode(body)
    readings = [reading for each in either if (reading := each.reading()) is not None]
    if len(readings) < len(either):
        raise msgspec.ValidationError("a reading is of both kinds, of neither, or not whole")
    return _checked(readings)


def _checked(readings: list[Reading]) -> list[Reading]:
    if not ids_are_good(map(_id, readings)):
        raise msgspec.ValidationError("an id holds a character that it may not")
    return readings


def _bare(annotated: Any) -> type:
    """Give the plain type below Annotated: str, float or datetime."""
    return cast("type", annotated.__origin__)


def _bounds(annotated: Any) -> str:
    """Word the range that the type allows, empty where it has none."""
    ranges = [rule for rule in annotated.__metadata__ if rule.ge is not None and rule.le is not None]
    return f"from {ranges[0].ge:g} to {ranges[0].le:g}" if ranges else ""


METER: Final = Shape("meter", MeterReading, "meterId")
VEHICLE: Final = Shape("vehicle", VehicleReading, "vehicleId")
SHAPES: Final[dict[Kind, Shape]] = {"meter": METER, "vehicle": VEHICLE}

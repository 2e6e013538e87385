"""What a reading is: the rules of the contract, written once, in the types.

Energy is that of the interval which the reading closes, in kWh: AC as billed by the meter, DC as it
reached the battery. A reading is identified by its device and its timestamp.

Whoever makes readings of what others sent asks `ids_are_good` too: the types leave the characters of ids to
it. service.ingest.shapes and service.importer.mapping do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, NamedTuple, Self

import msgspec
from msgspec import Meta

from service.settings import Settings

Kind = Literal["meter", "vehicle"]

_ID_CHARACTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-"
_ID_PATTERN: Final = r"^[A-Za-z0-9._:\-]+\Z"
_ID_WORDS: Final = "1 to 64 characters of A-Z a-z 0-9 . _ : -"

DeviceId = Annotated[
    str,
    Meta(min_length=1, max_length=64, pattern=_ID_PATTERN, description=_ID_WORDS, examples=["meter-1"]),
]
# The same without a look at the characters: a pattern takes as long as the rest of a reading's decoding,
# `ids_are_good` a sixth of that for the ids of many.
UncheckedId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description=_ID_WORDS,
        examples=["meter-1"],
        extra_json_schema={"pattern": _ID_PATTERN},
    ),
]
Timestamp = Annotated[
    datetime, Meta(tz=True, description="RFC 3339 with a zone", examples=["2026-01-31T12:00:00Z"])
]
EnergyKwh = Annotated[
    float, Meta(ge=0, le=1000, description="Energy of the interval the reading closes, kWh", examples=[0.12])
]
VoltageV = Annotated[float, Meta(ge=0, le=1000, description="Volt", examples=[230.1])]
SocPercent = Annotated[float, Meta(ge=0, le=100, description="State of charge, percent", examples=[63.5])]
TemperatureC = Annotated[
    float, Meta(ge=-60, le=150, description="Battery temperature, degrees Celsius", examples=[28.4])
]


class MeterReading(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={
        "device_id": "meterId",
        "recorded_at": "timestamp",
        "kwh_consumed_ac": "kwhConsumedAc",
        "voltage": "voltage",
    },
):
    """One interval of a smart meter: AC energy drawn from the grid (kWh) and mean voltage (V)."""

    device_id: UncheckedId
    recorded_at: Timestamp
    kwh_consumed_ac: EnergyKwh
    voltage: VoltageV


class VehicleReading(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={
        "device_id": "vehicleId",
        "recorded_at": "timestamp",
        "soc": "soc",
        "kwh_delivered_dc": "kwhDeliveredDc",
        "battery_temp": "batteryTemp",
    },
):
    """One interval of a vehicle: state of charge (%), DC energy into the battery (kWh), temperature (C)."""

    device_id: UncheckedId
    recorded_at: Timestamp
    soc: SocPercent
    kwh_delivered_dc: EnergyKwh
    battery_temp: TemperatureC


Reading = MeterReading | VehicleReading


def ids_are_good(ids: Iterable[str]) -> bool:
    """Tell whether ids hold only characters that a DeviceId may have; their lengths are not looked at."""
    text = "".join(ids)
    return text.isascii() and not text.encode().translate(None, _ID_CHARACTERS)


def kind_of(reading: Reading) -> Kind:
    """Tell whose reading it is."""
    return "meter" if isinstance(reading, MeterReading) else "vehicle"


class Window(NamedTuple):
    """The earliest and the latest acceptable timestamp of one moment: a rule for all that comes in it."""

    earliest: datetime
    latest: datetime

    def window(self) -> Window:
        """Give itself, as a TimeRule gives its own."""
        return self


class TimeRule(msgspec.Struct, frozen=True):
    """When a timestamp is acceptable: at most `ahead_s` after now, at most `behind_s` before (0: any age)."""

    ahead_s: float = 300.0
    behind_s: float = 0.0
    now: Callable[[], float] = lambda: datetime.now(UTC).timestamp()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Make the rule that the settings ask for."""
        return cls(ahead_s=settings.clock_ahead_s, behind_s=settings.raw_retention_days * 86_400)

    def window(self) -> Window:
        """Give the earliest and the latest acceptable timestamp as of this moment."""
        now = self.now()
        latest = datetime.fromtimestamp(now + self.ahead_s, UTC)
        earliest = datetime.fromtimestamp(now - self.behind_s, UTC) if self.behind_s else EARLIEST
        return Window(earliest, latest)


# Year 1 in any zone: below it, conversion to UTC would overflow.
EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)

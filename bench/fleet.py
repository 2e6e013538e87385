"""The readings that benchmarks send: of a seeded fleet, a reading a minute each, as COPY rows and as JSON."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple

SEED: Final = 5

Kind = Literal["meter", "vehicle"]
KINDS: Final[tuple[Kind, ...]] = ("meter", "vehicle")


class Reading(NamedTuple):
    """One reading: whose, when (RFC 3339), and its two or three values in the order of the table."""

    kind: Kind
    device: str
    at: str
    values: tuple[float, ...]

    def row(self) -> str:
        """Give it as a row of COPY's text."""
        return "\t".join((self.device, self.at, *map(repr, self.values))) + "\n"

    def json(self) -> bytes:
        """Give it as a device sends it."""
        if self.kind == "meter":
            kwh, voltage = self.values
            body = (
                f'"meterId":"{self.device}","timestamp":"{self.at}",'
                f'"kwhConsumedAc":{kwh!r},"voltage":{voltage!r}'
            )
        else:
            soc, kwh, temperature = self.values
            body = (
                f'"vehicleId":"{self.device}","timestamp":"{self.at}","soc":{soc!r},'
                f'"kwhDeliveredDc":{kwh!r},"batteryTemp":{temperature!r}'
            )
        return f"{{{body}}}".encode()


def recent() -> datetime:
    """Give a whole hour of the last seven, with three hours after it in the same day, and in the past."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    midnight = hour.replace(hour=0)
    return hour - timedelta(hours=3) if hour.hour >= 3 else midnight - timedelta(hours=4)


def minutes(
    first: int, count: int, devices: int, *, begin: datetime | None = None, seed: int = SEED
) -> list[Reading]:
    """Give minutes `first` and following, after `begin`, of `devices` meters and as many vehicles.

    They come in the order of time. Each device has a second of its own in the minute, and some milliseconds
    more: never on the minute, where the histories of other benchmarks have theirs.
    """
    chosen = random.Random(f"{seed}/{first}")
    begin = begin or recent()
    found: list[Reading] = []
    for minute in range(first, first + count):
        for number in range(devices):
            for kind in KINDS:
                at = begin + timedelta(
                    minutes=minute, seconds=59.9 * number / devices, milliseconds=chosen.randint(1, 40)
                )
                stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
                kwh = chosen.randint(0, 183_333) / 1e6
                if kind == "meter":
                    values: tuple[float, ...] = (kwh, chosen.randint(22_500, 23_500) / 100)
                    found.append(Reading(kind, f"METER-{number + 1}", stamp, values))
                else:
                    soc, temperature = chosen.randint(100, 1000) / 10, chosen.randint(50, 400) / 10
                    values = (soc, round(kwh * 0.91, 6), temperature)
                    found.append(Reading(kind, f"VH-{number + 1}", stamp, values))
    return found


def array(readings: list[Reading]) -> bytes:
    """Give readings as a JSON array."""
    return b"[" + b",".join([reading.json() for reading in readings]) + b"]"


def lines(readings: list[Reading]) -> bytes:
    """Give readings as NDJSON."""
    return b"\n".join([reading.json() for reading in readings])

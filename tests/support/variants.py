"""The page docs/variants.md, read for the tests: its sections, the rows of its tables, and what they name."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/variants.md").read_text()
_DELIMITER: Final = re.compile(r"\|(?: *-+ *\|)+")


class Row(NamedTuple):
    """A row of a table: the heading it stands under, the head of its table, its cells."""

    section: str
    head: list[str]
    cells: list[str]

    @property
    def text(self) -> str:
        """Give the row as one line."""
        return " | ".join(self.cells)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def table_rows() -> list[Row]:
    """List the rows of all tables of the page."""
    found: list[Row] = []
    section, head, lines = "", list[str](), PAGE.splitlines()
    for place, line in enumerate(lines):
        if line.startswith("#"):
            section = line.lstrip("# ")
        elif not line.startswith("|"):
            head = []
        elif _DELIMITER.fullmatch(line):
            head = _cells(lines[place - 1])
        elif head:
            found.append(Row(section, head, _cells(line)))
    return found


ROWS: Final = table_rows()


class Variant(NamedTuple):
    """A variant's ids as it writes them, the example ratio of its answer, and its names in that answer."""

    meter_id: str
    vehicle_id: str
    ratio: float
    names: dict[str, str]


# Name there -> name here; what an answer of C is called there is not known.
_A: Final = {
    "vehicleId": "vehicleId",
    "totalAcConsumption": "totalAcConsumedKwh",
    "totalDcDelivery": "totalDcDeliveredKwh",
    "efficiencyRatio": "efficiencyRatio",
    "avgBatteryTemp": "avgBatteryTemp",
    "dataPoints": "readingsCount.vehicle",
}
_C: Final = {
    "AC": "totalAcConsumedKwh",
    "DC": "totalDcDeliveredKwh",
    "ratio": "efficiencyRatio",
    "temperature": "avgBatteryTemp",
}
_D: Final = {
    "vehicleId": "vehicleId",
    "totalEnergyConsumedAc": "totalAcConsumedKwh",
    "totalEnergyDeliveredDc": "totalDcDeliveredKwh",
    "efficiencyRatio": "efficiencyRatio",
    "avgBatteryTemp": "avgBatteryTemp",
}
_E: Final = {
    name: name
    for name in (
        *("vehicleId", "periodStart", "periodEnd", "totalAcConsumedKwh", "totalDcDeliveredKwh"),
        *("efficiencyRatio", "avgBatteryTemp", "readingsCount.vehicle", "readingsCount.meter"),
    )
}
VARIANTS: Final = {
    "A": Variant("7c9e6679-7425-40de-944b-e07fc1f90ae7", "550e8400-e29b-41d4-a716-446655440000", 0.815, _A),
    "B": Variant("f47ac10b-58cc-4372-a567-0e02b2c3d479", "9b2e4f3a-1c5d-4e6f-8a7b-3c2d1e0f9a8b", 0.815, _A),
    "C": Variant("meter-1", "vehicle-1", 0.9, _C),
    # A meter and its vehicle have one id.
    "D": Variant("METER_001", "METER_001", 0.8752, _D),
    "E": Variant("METER-001", "VH-001", 0.8567, _E),
}


def payloads(
    variant: Variant, minutes: int = 10, *, ac_kwh: float = 10.0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make what a meter and a vehicle send in the last minutes, in the words that all variants share."""
    newest = datetime.now(UTC).replace(microsecond=0)
    moments = [(newest - timedelta(minutes=ago)).isoformat() for ago in reversed(range(minutes))]
    kwh = ac_kwh / minutes
    meters = [
        {"meterId": variant.meter_id, "kwhConsumedAc": kwh, "voltage": 229.5, "timestamp": moment}
        for moment in moments
    ]
    vehicles = [
        {
            "vehicleId": variant.vehicle_id,
            "soc": 40 + place,
            "kwhDeliveredDc": kwh * variant.ratio,
            "batteryTemp": 24 + place % 2,
            "timestamp": moment,
        }
        for place, moment in enumerate(moments)
    ]
    return meters, vehicles


def in_its_words(variant: Variant, answer: dict[str, Any]) -> dict[str, Any]:
    """Give an energy summary under the names of a variant."""
    flat = {
        **answer,
        **{f"readingsCount.{name}": count for name, count in answer["readingsCount"].items()},
    }
    return {there: flat[here] for there, here in variant.names.items()}

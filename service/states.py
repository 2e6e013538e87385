"""How the latest state of a device is worded, wherever it is told.

Moments stay what they are, in UTC: the encoder writes them as RFC 3339, in a fourth of the time.
"""

from __future__ import annotations

from datetime import UTC
from typing import Any


def meter_state(row: dict[str, Any]) -> dict[str, Any]:
    """Word a row of meter_state."""
    return {
        "meterId": row["meter_id"],
        "kwhConsumedAc": row["kwh_consumed_ac"],
        "voltage": row["voltage"],
        "timestamp": row["recorded_at"].astimezone(UTC),
        "lastUpdated": row["updated_at"].astimezone(UTC),
    }


def vehicle_state(row: dict[str, Any]) -> dict[str, Any]:
    """Word a row of vehicle_state."""
    return {
        "vehicleId": row["vehicle_id"],
        "soc": row["soc"],
        "kwhDeliveredDc": row["kwh_delivered_dc"],
        "batteryTemp": row["battery_temp"],
        "timestamp": row["recorded_at"].astimezone(UTC),
        "lastUpdated": row["updated_at"].astimezone(UTC),
    }

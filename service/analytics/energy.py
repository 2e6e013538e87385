"""How an energy balance is worded: billed AC, delivered DC, what was lost, and their ratio."""

from __future__ import annotations

from typing import Any

from service.web.answers import rounded


def balance(kwh_ac: float, kwh_dc: float, threshold: float, *, told: bool = True) -> dict[str, Any]:
    """Word an energy balance: DC / AC is null without AC, and a vehicle without a meter has AC 0.

    `told` is whether the vehicle reported at all: its silence is no proof against a charger.
    """
    # Compared as it is told, so that no answer contradicts itself.
    efficiency = rounded(kwh_dc / kwh_ac) if kwh_ac > 0 else None
    return {
        "totalAcConsumedKwh": rounded(kwh_ac),
        "totalDcDeliveredKwh": rounded(kwh_dc),
        "energyLossKwh": rounded(kwh_ac - kwh_dc),
        "efficiencyRatio": efficiency,
        "belowThreshold": told and efficiency is not None and efficiency < threshold,
    }


def counts(row: dict[str, Any]) -> dict[str, int]:
    """Word how many readings stand behind a balance."""
    return {"vehicle": row["vehicle_readings"], "meter": row["meter_readings"]}


def mean_temperature(row: dict[str, Any]) -> float | None:
    """Give the mean battery temperature over a row's readings, None without any."""
    return rounded(row["battery_temp_sum"] / row["vehicle_readings"]) if row["vehicle_readings"] else None

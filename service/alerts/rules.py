"""The settings that the database evaluates alerts by, as numbers under their own names."""

from __future__ import annotations

from typing import Final

from service.settings import Settings

_NAMES: Final = (
    "alerts",
    "efficiency_threshold",
    "alert_window_hours",
    "alert_close_margin",
    "alert_fault_tolerance",
    "alert_least_kwh",
    "alert_least_coverage",
    "alert_reading_interval_s",
    "alert_stale_hours",
)


def database_settings(settings: Settings) -> dict[str, float]:
    """Give what the function alert_rule reads, for apply_settings."""
    return {name: float(getattr(settings, name)) for name in _NAMES}

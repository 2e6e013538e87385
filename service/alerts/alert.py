"""What an alert and its events look like to everybody outside: over HTTP, over MQTT, in the webhook."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

import msgspec

from service.web.answers import DECIMALS, rfc3339, rounded

AlertKind = Literal["low_efficiency", "data_fault"]


class Coverage(msgspec.Struct, frozen=True):
    """The share of the expected readings that was there, 0 to 1."""

    meter: float
    vehicle: float


class Alert(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """An alert as it is told. Energies and ratioLatest are those of [windowStart, windowEnd)."""

    alert_id: int
    vehicle_id: str
    meter_id: str
    kind: AlertKind
    state: Literal["open", "closed"]
    opened_at: str | None
    closed_at: str | None
    close_reason: str | None
    window_start: str | None
    window_end: str | None
    total_ac_consumed_kwh: float
    total_dc_delivered_kwh: float
    ratio_at_opening: float | None
    ratio_worst: float | None
    ratio_latest: float | None
    threshold: float
    coverage: Coverage
    evaluated_until: str | None

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """Word a row of efficiency_alert, or its image in an event, where moments are texts."""
        return cls(
            alert_id=row["alert_id"],
            vehicle_id=row["vehicle_id"],
            meter_id=row["meter_id"],
            kind=row["kind"],
            state="open" if row["closed_at"] is None else "closed",
            opened_at=_moment(row["opened_at"]),
            closed_at=_moment(row["closed_at"]),
            close_reason=row["close_reason"],
            window_start=_moment(row["window_from"]),
            window_end=_moment(row["window_to"]),
            total_ac_consumed_kwh=round(row["kwh_ac"], DECIMALS),
            total_dc_delivered_kwh=round(row["kwh_dc"], DECIMALS),
            ratio_at_opening=rounded(row["ratio_opened"]),
            ratio_worst=rounded(row["ratio_worst"]),
            ratio_latest=rounded(row["ratio_latest"]),
            threshold=round(row["threshold"], DECIMALS),
            coverage=Coverage(
                meter=round(row["meter_coverage"], DECIMALS),
                vehicle=round(row["vehicle_coverage"], DECIMALS),
            ),
            evaluated_until=_moment(row["evaluated_until"]),
        )


def _moment(value: datetime | str | None) -> str | None:
    return rfc3339(datetime.fromisoformat(value) if isinstance(value, str) else value)


def event_body(row: dict[str, Any]) -> bytes:
    """Give what is posted of a row of alert_event: the same bytes at each try."""
    return msgspec.json.encode(
        {
            "eventId": str(row["event_key"]),
            "type": f"alert.{row['action']}",
            "occurredAt": rfc3339(row["occurred_at"]),
            "alert": Alert.from_row(row["alert"]),
        }
    )


def vehicle_body(vehicle_id: str, alerts: list[dict[str, Any]]) -> bytes:
    """Give what is published of a vehicle: its open alerts, none when all is well."""
    return msgspec.json.encode({"vehicleId": vehicle_id, "alerts": [Alert.from_row(row) for row in alerts]})

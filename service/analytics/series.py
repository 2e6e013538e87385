"""Energy over the fleet and over time: the least efficient first, or hour by hour and day by day."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, Literal, LiteralString, NamedTuple

from service.analytics.energy import balance, counts, mean_temperature
from service.questions import Question, Rows, Source
from service.settings import Settings
from service.sql import query
from service.web.answers import cut_page, rfc3339, rounded

Width = Literal["hour", "day"]
Device = Literal["vehicle", "meter"]
# [from, to), without an end where there is none.
Window = tuple[datetime | None, datetime | None]

_WORST: Final[dict[Device, LiteralString]] = {
    "vehicle": query("fleet_by_vehicle"),
    "meter": query("fleet_by_meter"),
}
_KNOWN: Final[dict[Device, LiteralString]] = {
    "vehicle": query("vehicle_known"),
    "meter": query("meter_known"),
}


class Span(NamedTuple):
    """A window [start, end), and the time zone whose hours and days divide it."""

    start: datetime
    end: datetime
    zone: str = "UTC"

    def parameters(self, width: Width) -> dict[str, Any]:
        """Give the parameters of the queries that go by time."""
        return {"window_from": self.start, "window_to": self.end, "width": width, "zone": self.zone}


class Series(NamedTuple):
    """What the routes of the fleet and of time series ask the database."""

    source: Source
    settings: Settings

    async def finished_day(self) -> tuple[datetime, datetime] | None:
        """Give the last 24 hours that are rolled up as a window; None before the first refresh."""
        [[row]] = await self.source.ask(Question(query("finished_until")))
        end: datetime | None = row["finished_until"]
        return None if end is None else (end - timedelta(hours=24), end)

    async def worst(self, by: Device, span: Span, limit: int, least_kwh: float) -> dict[str, Any]:
        """Give the fleet's energy over a span, and vehicles or meters with the lowest DC / AC first.

        Those that drew less than `least_kwh` are left out of the list: too little to tell a fault.
        """
        values = {
            "window_from": span.start,
            "window_to": span.end,
            "least_kwh": least_kwh,
            "page_size": limit,
        }
        rows, sessions = await self.source.ask(Question(_WORST[by], values), _sessions_at(span))
        total = self._balance(rows[0]["fleet_kwh_ac"], rows[0]["fleet_kwh_dc"])
        listed = [
            {
                f"{by}Id": row["device_id"],
                **self._balance(row["kwh_ac"], row["kwh_dc"], told=row["vehicle_readings"] > 0),
                "readingsCount": counts(row),
            }
            for row in rows
            if row["device_id"] is not None
        ]
        return {**self._head(span, sessions), **total, f"{by}s": listed}

    async def fleet(self, width: Width, span: Span) -> dict[str, Any]:
        """Give the fleet's energy over a span, in all and hour by hour or day by day."""
        rows, sessions = await self.source.ask(
            Question(query("fleet_by_time"), span.parameters(width)), _sessions_at(span)
        )
        total = self._balance(sum(row["kwh_ac"] for row in rows), sum(row["kwh_dc"] for row in rows))
        return {**self._head(span, sessions), **total, f"{width}s": [self._interval(row) for row in rows]}

    async def vehicle(self, vehicle_id: str, width: Width, span: Span) -> dict[str, Any] | None:
        """Give the time series behind a vehicle's summary, None if nobody ever heard of the vehicle."""
        rows = await self._of("vehicle", vehicle_id, query("vehicle_by_time"), span.parameters(width))
        if rows is None:
            return None
        return {
            "vehicleId": vehicle_id,
            **self._period(span),
            f"{width}s": [
                {
                    **self._interval(row),
                    "avgBatteryTemp": mean_temperature(row),
                    "minBatteryTemp": rounded(row["battery_temp_min"]),
                    "maxBatteryTemp": rounded(row["battery_temp_max"]),
                    "firstSoc": rounded(row["soc_first"]),
                    "lastSoc": rounded(row["soc_last"]),
                    "minSoc": rounded(row["soc_min"]),
                    "maxSoc": rounded(row["soc_max"]),
                }
                for row in rows
            ],
        }

    async def meter(self, meter_id: str, width: Width, span: Span) -> dict[str, Any] | None:
        """Give what a meter counted over time and how its vehicles fared, None if nobody ever heard of it."""
        rows = await self._of("meter", meter_id, query("meter_by_time"), span.parameters(width))
        if rows is None:
            return None
        return {
            "meterId": meter_id,
            **self._period(span),
            f"{width}s": [
                {
                    **self._interval(row),
                    "meteredAcKwh": rounded(row["kwh_metered"]),
                    "avgVoltage": rounded(row["voltage_mean"]),
                    "minVoltage": rounded(row["voltage_min"]),
                    "maxVoltage": rounded(row["voltage_max"]),
                }
                for row in rows
            ],
        }

    async def has_session(self, session_id: str) -> bool:
        """Tell whether there is a session of this id."""
        [[row]] = await self.source.ask(Question(query("session_exists"), {"session_id": session_id}))
        known: bool = row["known"]
        return known

    async def sessions(
        self, device: Device, device_id: str, window: Window, limit: int, after: str | None
    ) -> dict[str, Any] | None:
        """Give a page of a device's sessions with their energy, None if nobody ever heard of the device.

        `next` is the id to go on after, null on the last page.
        """
        parameters = {
            "vehicle_id": device_id if device == "vehicle" else None,
            "meter_id": device_id if device == "meter" else None,
            "window_from": window[0],
            "window_to": window[1],
            "after_id": after,
            "page_size": limit + 1,
        }
        rows = await self._of(device, device_id, query("sessions_with_energy"), parameters)
        if rows is None:
            return None
        page, last = cut_page(rows, limit)
        return {
            "sessions": [
                {
                    "sessionId": row["session_id"],
                    "vehicleId": row["vehicle_id"],
                    "meterId": row["meter_id"],
                    "startedAt": rfc3339(row["started_at"]),
                    "endedAt": rfc3339(row["ended_at"]),
                    **self._balance(row["kwh_ac"], row["kwh_dc"], told=row["vehicle_readings"] > 0),
                    "readingsCount": counts(row),
                    "meteredAcKwh": rounded(row["kwh_metered"]),
                }
                for row in page
            ],
            "next": last and last["session_id"],
        }

    async def _of(
        self, device: Device, device_id: str, statement: LiteralString, parameters: dict[str, Any]
    ) -> Rows | None:
        """Ask about a device, None if nobody ever heard of it."""
        [answer], rows = await self.source.ask(
            Question(_KNOWN[device], {"id": device_id}), Question(statement, {"id": device_id, **parameters})
        )
        return rows if answer["known"] else None

    def _period(self, span: Span) -> dict[str, Any]:
        return {
            "periodStart": rfc3339(span.start),
            "periodEnd": rfc3339(span.end),
            "threshold": self.settings.efficiency_threshold,
        }

    def _head(self, span: Span, sessions: Rows) -> dict[str, Any]:
        return {**self._period(span), "charging": sessions[0]["charging"]}

    def _interval(self, row: dict[str, Any]) -> dict[str, Any]:
        return {
            "start": rfc3339(row["started_at"]),
            "end": rfc3339(row["ended_at"]),
            **self._balance(row["kwh_ac"], row["kwh_dc"], told=row["vehicle_readings"] > 0),
            "readingsCount": counts(row),
        }

    def _balance(self, kwh_ac: float, kwh_dc: float, *, told: bool = True) -> dict[str, Any]:
        return balance(kwh_ac, kwh_dc, self.settings.efficiency_threshold, told=told)


def _sessions_at(span: Span) -> Question:
    return Question(query("sessions_at"), {"at": span.end})

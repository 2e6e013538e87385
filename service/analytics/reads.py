"""Parameters in, named queries, camelCase answers out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, LiteralString, NamedTuple

from service.analytics.energy import balance, counts, mean_temperature
from service.questions import Question, Rows, Source
from service.settings import Settings
from service.sql import query
from service.states import meter_state, vehicle_state
from service.web.answers import cut_page, rfc3339, rounded


class Reads(NamedTuple):
    """What the read routes ask the database."""

    source: Source
    settings: Settings

    async def meter_current(self, device_id: str) -> dict[str, Any] | None:
        """Give the latest state of a meter, None if it never reported."""
        [rows] = await self.source.ask(Question(query("meter_current"), {"id": device_id}))
        return meter_state(rows[0]) if rows else None

    async def vehicle_current(self, device_id: str) -> dict[str, Any] | None:
        """Give the latest state of a vehicle, None if it never reported."""
        [rows] = await self.source.ask(Question(query("vehicle_current"), {"id": device_id}))
        return vehicle_state(rows[0]) if rows else None

    async def meter_states(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Give a page of meters; `next` is the id to go on after, null on the last page."""
        rows, last = await self._page(query("meter_states"), parameters)
        return {
            "meters": [meter_state(row) for row in rows],
            "next": last and last["meter_id"],
        }

    async def vehicle_states(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Give a page of vehicles; `next` is the id to go on after, null on the last page."""
        rows, last = await self._page(query("vehicle_states"), parameters)
        return {
            "vehicles": [vehicle_state(row) for row in rows],
            "next": last and last["vehicle_id"],
        }

    async def performance(self, vehicle_id: str, start: datetime, end: datetime) -> dict[str, Any] | None:
        """Give the energy summary of a vehicle over [start, end), None if nobody ever heard of it."""
        values = {"id": vehicle_id, "window_from": start, "window_to": end}
        [[row]] = await self.source.ask(Question(query("vehicle_performance"), values))
        if not row["known"]:
            return None
        threshold = self.settings.efficiency_threshold
        return {
            "vehicleId": vehicle_id,
            "periodStart": rfc3339(start),
            "periodEnd": rfc3339(end),
            **balance(row["kwh_ac"], row["kwh_dc"], threshold, told=row["vehicle_readings"] > 0),
            "avgBatteryTemp": mean_temperature(row),
            "readingsCount": counts(row),
            "threshold": threshold,
        }

    async def stats(self) -> dict[str, Any]:
        """Give figures about the engine: devices, exact row counts, ingest rate and lag, rollups, storage."""
        [devices], totals, recent, letters, storage, rollups = await self.source.ask(
            Question(query("device_counts")),
            Question(query("ingest_totals")),
            Question(query("ingest_recently")),
            Question(query("dead_letter_counts")),
            Question(query("storage")),
            Question(query("rollup_freshness")),
        )
        return {
            "time": rfc3339(datetime.now(UTC)),
            "devices": {"meters": devices["meters"], "vehicles": devices["vehicles"]},
            "newestReading": {
                "meter": rfc3339(devices["newest_meter"]),
                "vehicle": rfc3339(devices["newest_vehicle"]),
            },
            "readings": {kind: _totals(totals, kind) for kind in ("meter", "vehicle")},
            "ingest": {
                "readingsPerSecond": rounded(sum(row["accepted_per_s"] for row in recent)),
                "sources": {row["source"]: _source(row) for row in recent},
            },
            "deadLetters": {
                "total": sum(row["letters"] for row in letters),
                "byCode": {row["code"]: row["letters"] for row in letters},
            },
            "rollups": {row["stream"]: _freshness(row) for row in rollups},
            "storage": {row["name"]: {"bytes": row["bytes"], "chunks": row["chunks"]} for row in storage},
        }

    async def _page(
        self, statement: LiteralString, parameters: dict[str, Any]
    ) -> tuple[Rows, dict[str, Any] | None]:
        size = parameters["page_size"]
        [rows] = await self.source.ask(Question(statement, {**parameters, "page_size": size + 1}))
        return cut_page(rows, size)


def _totals(rows: Rows, kind: str) -> dict[str, int]:
    names = ("accepted", "duplicates", "conflicts")
    return {name: sum(row[name] for row in rows if row["kind"] == kind) for name in names}


def _source(row: dict[str, Any]) -> dict[str, Any]:
    """Word rate and lag of a source: lag is the age, when stored, of each device's newest reading."""
    return {
        "readingsPerSecond": rounded(row["accepted_per_s"]),
        "lagMeanSeconds": rounded(row["lag_s_mean"]),
        "lagMaxSeconds": rounded(row["lag_s_max"]),
    }


def _freshness(row: dict[str, Any]) -> dict[str, Any]:
    """Word how far the rollups of a stream reach; null where nothing was rolled up or nothing failed yet."""
    return {
        "refreshedUntil": rfc3339(row["refreshed_until"]),
        "refreshedAt": rfc3339(row["refreshed_at"]),
        "staleHours": row["stale_hours"],
        "failures": row["failures"],
        "failedAt": rfc3339(row["failed_at"]),
        "lastError": row["last_error"],
    }

"""What a client of the API does: store readings and sessions, and ask."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx

from service.readings import Reading
from tests.support.strategies import Api, as_json, rfc3339


async def store(api: Api | httpx.AsyncClient, *readings: Reading) -> None:
    """Store readings, all of them new."""
    response = await api.post("/v1/telemetry", json=[as_json(reading) for reading in readings])
    assert response.json() == {"accepted": len(readings), "duplicates": 0, "rejected": []}


async def charge(
    api: Api | httpx.AsyncClient, vehicle_id: str, meter_id: str, start: datetime, end: datetime | None
) -> None:
    """Store a charging session."""
    body = {"vehicleId": vehicle_id, "meterId": meter_id, "startedAt": rfc3339(start)}
    response = await api.post("/v1/sessions", json=body | {"endedAt": end and rfc3339(end)})
    assert response.status_code == 201, response.text


async def get(api: Api | httpx.AsyncClient, address: str) -> dict[str, Any]:
    """Ask for what is there."""
    response = await api.get(address)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/json")
    body: dict[str, Any] = response.json()
    return body

"""From readings to whoever is told: an alert's whole life through the running engine."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from service.settings import Settings
from tests.support.alert_receivers import PATIENCE_S, receiving, retained, until
from tests.support.strategies import Owner, rfc3339, serving

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


async def charge(
    client: httpx.AsyncClient, vehicle: str, meter: str, start: datetime, ratio: float, hours: int
) -> None:
    """Send the readings and the session of a charge, as devices and their backend do."""
    readings: list[dict[str, Any]] = []
    for minute in range(60 * hours):
        at = rfc3339(start + timedelta(minutes=minute))
        readings += [
            {"meterId": meter, "kwhConsumedAc": 0.2, "voltage": 230, "timestamp": at},
            {
                "vehicleId": vehicle,
                "kwhDeliveredDc": 0.2 * ratio,
                "soc": 50,
                "batteryTemp": 20,
                "timestamp": at,
            },
        ]
    answer = await client.post("/v1/telemetry", json=readings)
    assert answer.json() == {"accepted": len(readings), "duplicates": 0, "rejected": []}
    session = {
        "vehicleId": vehicle,
        "meterId": meter,
        "startedAt": rfc3339(start),
        "endedAt": rfc3339(start + hours * HOUR),
    }
    assert (await client.post("/v1/sessions", json=session)).status_code == 201


async def refreshed(owner: Owner, client: httpx.AsyncClient, state: str, expected: int) -> None:
    """Refresh until there are as many alerts of a state; while the service does it, a call does nothing."""
    found = -1
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while found != expected:
                await owner.execute("call refresh_rollups()")
                found = len((await client.get(f"/v1/alerts?state={state}")).json()["alerts"])
    assert found == expected


async def test_the_life_of_an_alert(
    mqtt_settings: Settings, owner: Owner, broker_port: int, database: str, edition: str
) -> None:
    """A bad charge opens an alert that everybody is told of; late readings of sound charges close it."""
    vehicle = f"{edition}-{database}-life"
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 3 * HOUR
    async with receiving() as receiver:
        settings = msgspec.structs.replace(mqtt_settings, alert_poll_s=0.1, alert_webhook_url=receiver.url)
        async with serving(settings) as client:
            await charge(client, vehicle, "m-1", start, ratio=0.6, hours=1)
            await charge(client, f"{vehicle}-sound", "m-2", start, ratio=0.92, hours=1)
            await refreshed(owner, client, "open", 1)
            [alert] = (await client.get("/v1/alerts?state=open")).json()["alerts"]
            assert (alert["vehicleId"], alert["meterId"], alert["ratioLatest"]) == (vehicle, "m-1", 0.6)
            assert (alert["totalAcConsumedKwh"], alert["totalDcDeliveredKwh"]) == (12, 7.2)
            await until(owner, "mqtt_delivered_at is not null and webhook_state = 'delivered'", 1)
            was_retained, state = await retained(broker_port, vehicle)
            assert (was_retained, state) == (True, {"vehicleId": vehicle, "alerts": [alert]})

            # Kept back by the devices until now: 10 hours at 0.92, so 0.89 over the window.
            await charge(client, vehicle, "m-1", start - 10 * HOUR, ratio=0.92, hours=10)
            await refreshed(owner, client, "closed", 1)
            assert (await client.get("/v1/alerts?state=open")).json()["alerts"] == []
            [alert] = (await client.get(f"/v1/alerts?vehicleId={vehicle}")).json()["alerts"]
            assert (alert["state"], alert["closeReason"]) == ("closed", "recovered")
            assert (alert["ratioAtOpening"], alert["ratioWorst"], alert["ratioLatest"]) == (
                0.6,
                0.6,
                0.890909,
            )
            await until(owner, "mqtt_delivered_at is not null and webhook_state = 'delivered'", 2)
            assert (await retained(broker_port, vehicle))[1] == {"vehicleId": vehicle, "alerts": []}
    assert [request.body["type"] for request in receiver.requests] == ["alert.opened", "alert.closed"]
    assert receiver.requests[1].body["alert"] == alert

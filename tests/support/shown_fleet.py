"""A fleet to look at: simulated readings, sessions, alerts, dead letters, and some silent vehicles."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg

from service.readings import MeterReading, VehicleReading
from service.settings import Settings
from service.simulator.fleet import Fleet
from service.simulator.http import HttpSender
from service.simulator.progress import Progress
from service.simulator.seed import seed
from tests.support.serving import Served, served
from tests.support.strategies import as_json

# More than the first page of states that the dashboard asks for.
VEHICLES: Final = 210
INTERVAL_S: Final = 300.0
# What every engine on it is given: how often its devices send, or alerts would wait for more readings.
VARIABLES: Final[dict[str, Any]] = {"ALERT_READING_INTERVAL_S": INTERVAL_S}
SILENT: Final = ("VH-SILENT-1", "VH-SILENT-2")
SEED: Final = 7
FAULTY_SHARE: Final = 0.05
_HISTORY: Final = timedelta(hours=25)
_BAD: Final[list[dict[str, Any]]] = [
    {"vehicleId": "VH-0001", "soc": 130, "kwhDeliveredDc": 0.1, "batteryTemp": 20},
    {"meterId": "METER-0001", "kwhConsumedAc": -1, "voltage": 230},
    {"meterId": "METER-0002", "kwhConsumedAc": 0.1, "voltage": "high"},
]


async def fill(settings: Settings, folder: Path) -> None:
    """Fill an empty database as devices would, over HTTP, and have it rolled up and judged."""
    fleet = Fleet(VEHICLES, VEHICLES, SEED, FAULTY_SHARE)
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    await seed(settings.database_url, fleet, now - _HISTORY, now + timedelta(days=1))
    async with served(settings, folder, **VARIABLES) as engine:
        progress = Progress()
        async with HttpSender(engine.address, progress, batch=5000) as sender:
            for readings in fleet.readings(now - _HISTORY, now, INTERVAL_S):
                await sender.send(readings)
            await sender.drain(50)
        assert (progress.problem, progress.rejected) == ("", 0)
        await _fall_silent(engine, now)
        for bad in _BAD:
            refused = await engine.client.post("/v1/telemetry", json=bad | {"timestamp": now.isoformat()})
            assert refused.status_code == 400, refused.text
    async with await psycopg.AsyncConnection.connect(settings.migrate_database_url, autocommit=True) as owner:
        await owner.execute("call refresh_rollups()")


async def _fall_silent(engine: Served, now: datetime) -> None:
    """Store readings of two days ago, of vehicles that sent nothing since."""
    readings = [
        reading
        for number, vehicle_id in enumerate(SILENT)
        for reading in (
            VehicleReading(vehicle_id, now - timedelta(days=2, hours=number), 40.0, 1.0, 21.0),
            MeterReading(f"METER-SILENT-{number}", now - timedelta(days=2, hours=number), 1.1, 230.0),
        )
    ]
    answer = await engine.client.post("/v1/telemetry", json=[as_json(reading) for reading in readings])
    assert answer.json()["accepted"] == len(readings)

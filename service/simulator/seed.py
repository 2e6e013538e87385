"""Stores the sessions of a simulated fleet, without which its meters would belong to no vehicle."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from psycopg import AsyncConnection

from service.simulator.fleet import Fleet, PlannedSession
from service.sql import query

_BATCH: Final = 5000


async def seed(url: str, fleet: Fleet, start: datetime, end: datetime) -> tuple[int, int]:
    """Store the sessions of a fleet that overlap [start, end); give how many were new and how many not.

    Not new are sessions that are stored already, and those whose meter has another session at that time
    (left by a fleet of another size or seed). Raises psycopg.Error if the database cannot be reached.
    """
    sessions = sorted(fleet.sessions(start, end), key=lambda session: (session.meter_id, session.started_at))
    new = 0
    async with await AsyncConnection.connect(
        url,
        application_name="fleetwatt seed",
        options="-c timezone=UTC -c fleetwatt.source=seed",
        connect_timeout=5,
    ) as connection:
        for first in range(0, len(sessions), _BATCH):
            new += await _insert(connection, sessions[first : first + _BATCH])
    return new, len(sessions) - new


async def _insert(connection: AsyncConnection, sessions: list[PlannedSession]) -> int:
    cursor = await connection.execute(
        query("import_sessions"),
        {
            "session_ids": [session.session_id for session in sessions],
            "vehicle_ids": [session.vehicle_id for session in sessions],
            "meter_ids": [session.meter_id for session in sessions],
            "started": [session.started_at for session in sessions],
            "ended": [session.ended_at for session in sessions],
        },
    )
    return cursor.rowcount

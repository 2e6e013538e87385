"""Refusals that only the database can find: conflicts, and what it will never take."""

from __future__ import annotations

from psycopg import errors

from service.ingest.decode import raw_part
from service.ingest.outcome import Decoded, Rejection
from service.readings import kind_of


def conflict(decoded: Decoded, place: int) -> Rejection:
    """Word the refusal of a reading whose key is stored with other values; `place` is among the readings."""
    message = "other values are stored for this device and timestamp; the first reading stays"
    return _refusal(decoded, place, "conflict", message, "timestamp")


def failure(decoded: Decoded, place: int, error: errors.Error) -> Rejection:
    """Word the refusal of a reading that the database will never take."""
    message = f"the database refused the reading (SQLSTATE {error.sqlstate or 'unknown'})"
    return _refusal(decoded, place, "database_refused", message, None)


def _refusal(decoded: Decoded, place: int, code: str, message: str, field: str | None) -> Rejection:
    reading = decoded.readings[place]
    index = decoded.indices[place]
    return Rejection(
        index=index,
        code=code,
        message=message,
        field=field,
        kind=kind_of(reading),
        device_id=reading.device_id,
        raw=raw_part(decoded, index),
    )

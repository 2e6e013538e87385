"""Dead letters for the tests: arranged in the table, read back, and replayed."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import msgspec

from service import db
from service.dead_letters.replay import Replay
from service.dead_letters.retry import Again, submit_to
from service.dead_letters.store import Letters
from service.ingest.pipeline import Pipeline
from service.settings import Settings
from tests.support.strategies import Owner, rows

_INSERT: Final = (
    "insert into dead_letter (received_at, origin, kind, device_id, code, field, message, raw, raw_size) "
    "values (coalesce(%(received_at)s, now()), %(origin)s, %(kind)s, %(device_id)s, %(code)s, 'timestamp', "
    "%(message)s, %(raw)s, %(raw_size)s) returning dead_letter_id"
)


async def keep(
    owner: Owner,
    raw: Any,
    origin: str = "http:/v1/telemetry",
    *,
    code: str = "future_timestamp",
    kind: str | None = None,
    device_id: str | None = None,
    message: str = "it was refused",
    received_at: datetime | None = None,
    raw_size: int | None = None,
) -> int:
    """Put a letter into the table as if it had been refused; give its id. What is not bytes becomes JSON."""
    body = raw if isinstance(raw, bytes) else msgspec.json.encode(raw)
    cursor = await owner.execute(
        _INSERT,
        {
            "received_at": received_at,
            "origin": origin,
            "kind": kind,
            "device_id": device_id,
            "code": code,
            "message": message,
            "raw": body,
            "raw_size": len(body) if raw_size is None else raw_size,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    number: int = row["dead_letter_id"]
    return number


async def marks(owner: Owner) -> dict[int, tuple[bool, int, str | None]]:
    """Give, of each letter, whether it is resolved, how often it was replayed, and the last error."""
    found = await rows(owner, "select * from dead_letter order by dead_letter_id")
    for row in found:
        assert (row["replays"] > 0) == (row["replayed_at"] is not None)
    return {
        row["dead_letter_id"]: (row["resolved_at"] is not None, row["replays"], row["replay_error"])
        for row in found
    }


async def tables(owner: Owner) -> dict[str, list[tuple[Any, ...]]]:
    """Give what replays may change of history and hot state, in one order."""
    statements = {
        "meter": "select meter_id, recorded_at, kwh_consumed_ac, voltage from meter_reading order by 1, 2",
        "vehicle": "select vehicle_id, recorded_at, soc, kwh_delivered_dc from vehicle_reading order by 1, 2",
        "meter_state": "select meter_id, recorded_at, kwh_consumed_ac from meter_state order by 1",
        "vehicle_state": "select vehicle_id, recorded_at, soc from vehicle_state order by 1",
    }
    return {
        name: [tuple(row.values()) for row in await rows(owner, text)] for name, text in statements.items()
    }


_NAMES: Final = itertools.count()


@asynccontextmanager
async def replaying(settings: Settings, **changes: Any) -> AsyncIterator[tuple[Replay, Letters]]:
    """Give what replays, as a process of its own would, some settings changed."""
    changed = msgspec.structs.replace(settings, **changes)
    async with db.read_pool(changed) as pool, Pipeline(changed, f"replay-{next(_NAMES)}") as pipeline:
        letters = Letters(pool)
        again = Again(changed, pool, submit_to(pipeline, changed))
        yield Replay(letters, again.take), letters

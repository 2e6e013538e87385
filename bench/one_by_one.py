"""How such systems are usually built: one transaction a reading, over a pool of connections."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from psycopg_pool import AsyncConnectionPool

from bench import task

_POOL: Final = 20

# Tables of its own, plain ones, with the columns, keys and checks of ours; which would
# pay for a vacuum of theirs.
TABLES: Final = """
    create table bench.one_meter_reading (
        like meter_reading including defaults including constraints including indexes
    ) with (autovacuum_enabled = off);
    create table bench.one_vehicle_reading (
        like vehicle_reading including defaults including constraints including indexes
    ) with (autovacuum_enabled = off);
    create table bench.one_meter_state (
        like meter_state including defaults including indexes
    ) with (fillfactor = 50, autovacuum_enabled = off);
    create table bench.one_vehicle_state (
        like vehicle_state including defaults including indexes
    ) with (fillfactor = 50, autovacuum_enabled = off);
"""
ROWS: Final = """
    select (select count(*) from bench.one_meter_reading) + (select count(*) from bench.one_vehicle_reading)
"""
_INSERT: Final = {
    "meter": """
        insert into bench.one_meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage)
        values (%s, %s, %s, %s)
    """,
    "vehicle": """
        insert into bench.one_vehicle_reading (vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp)
        values (%s, %s, %s, %s, %s)
    """,
}
_UPSERT: Final = {
    "meter": """
        insert into bench.one_meter_state as s (meter_id, recorded_at, kwh_consumed_ac, voltage)
        values (%s, %s, %s, %s)
        on conflict (meter_id) do update set
            recorded_at = excluded.recorded_at, kwh_consumed_ac = excluded.kwh_consumed_ac,
            voltage = excluded.voltage, updated_at = now()
        where s.recorded_at < excluded.recorded_at
    """,
    "vehicle": """
        insert into bench.one_vehicle_state as s (
            vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp
        )
        values (%s, %s, %s, %s, %s)
        on conflict (vehicle_id) do update set
            recorded_at = excluded.recorded_at, soc = excluded.soc,
            kwh_delivered_dc = excluded.kwh_delivered_dc, battery_temp = excluded.battery_temp,
            updated_at = now()
        where s.recorded_at < excluded.recorded_at
    """,
}


async def over_transactions(spec: dict[str, Any]) -> dict[str, Any]:
    """Store readings one by one, on as many connections as are in the pool."""
    readings = task.readings_of(spec)
    waiting = iter(readings)
    async with AsyncConnectionPool(spec["url"], min_size=_POOL, max_size=_POOL) as pool:
        await pool.wait()

        async def store() -> None:
            for reading in waiting:
                row = (reading.device, reading.at, *reading.values)
                async with pool.connection() as connection:
                    await connection.execute(_INSERT[reading.kind], row)
                    await connection.execute(_UPSERT[reading.kind], row)

        await task.go()
        began = time.perf_counter()
        await asyncio.gather(*(store() for _ in range(_POOL)))
        return {"seconds": time.perf_counter() - began, "readings": len(readings)}

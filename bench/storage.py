"""How many bytes a reading takes on disk, before and after the columnstore (TimescaleDB Community).

The readings are those of the simulator: charging sessions, measured losses, voltages that sag. When each was
stored, which every row holds too, is made up as it is in life: batches are written some milliseconds to a
second after the readings' time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from bench import engine as engines
from bench import fleet
from bench.engine import Database, Engine
from bench.results import Result, Scenario, Target, check
from bench.sizes import Sizes
from service.readings import MeterReading, Reading, VehicleReading
from service.simulator.fleet import Fleet
from tests.support import servers

_BATCH: Final = 500
_INTERVAL_S: Final = 60.0
_KINDS: Final = {
    "meter": "meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage, ingested_at)",
    "vehicle": "vehicle_reading (vehicle_id, recorded_at, soc, kwh_delivered_dc, battery_temp, ingested_at)",
}
# Whole chunks, a day each: the readings of a device together, in the order of time.
_COLUMNSTORE: Final = """
    alter table {kind}_reading set (
        timescaledb.enable_columnstore,
        timescaledb.segmentby = '{kind}_id',
        timescaledb.orderby = 'recorded_at'
    );
"""
_COMPRESS: Final = "select count(compress_chunk(c)) from show_chunks('{kind}_reading') as c"
_SIZE: Final = "select hypertable_size('{kind}_reading')"


def measure(engine: Engine, sizes: Sizes) -> Result:
    """Store some days of the simulator, convert all chunks, and compare."""
    result = Result("storage", "bytes a reading on TimescaleDB Community")
    with _community(engine) as community:
        if community is None:
            result.figures["skipped"] = "no TimescaleDB Community here"
            return result
        with community.database() as database:
            readings = _store(community, database, sizes)
            before = {kind: _size(database, kind) for kind in fleet.KINDS}
            for kind in fleet.KINDS:
                database.owner.execute(_COLUMNSTORE.format(kind=kind).encode())
                database.owner.execute(_COMPRESS.format(kind=kind).encode())
            after = {kind: _size(database, kind) for kind in fleet.KINDS}
            check(database.rows() == readings, f"{readings:,} readings were stored, {database.rows():,} are")
    result.figures = {
        "readings": readings,
        "settings": "segmentby = device, orderby = recorded_at, chunks of a day",
        "bytes_before": round(sum(before.values()) / readings, 2),
        "bytes_after": round(sum(after.values()) / readings, 2),
        # As many meters as vehicles, all of them at the same pace.
        **{f"bytes_{kind}_after": round(after[kind] / (readings / 2), 2) for kind in fleet.KINDS},
    }
    result.judge((Target("bytes_after", 12, at_least=False),))
    return result


@contextmanager
def _community(engine: Engine) -> Iterator[Engine | None]:
    if engine.edition == "community":
        yield engine
    elif servers.community_root() is None:
        yield None
    else:
        with engines.running("community") as other:
            yield other


def _store(engine: Engine, database: Database, sizes: Sizes) -> int:
    """Copy the simulator's readings into their tables; give how many there are."""
    simulated = Fleet(sizes.compressed_vehicles, sizes.compressed_vehicles, fleet.SEED)
    end = engine.begin.replace(hour=0)
    # The simulator's windows hold their end and not their start: whole days, for days are chunks.
    start = end - timedelta(days=sizes.compressed_days, seconds=_INTERVAL_S)
    lags = random.Random(fleet.SEED)
    count = 0
    for hour in range(24 * sizes.compressed_days):
        at = start + timedelta(hours=hour)
        ticks = list(simulated.readings(at, at + timedelta(hours=1), _INTERVAL_S))
        for kind, of in (("meter", MeterReading), ("vehicle", VehicleReading)):
            with (
                database.owner.cursor() as cursor,
                cursor.copy(f"copy {_KINDS[kind]} from stdin".encode()) as copy,
            ):
                for readings in ticks:
                    own = [reading for reading in readings if isinstance(reading, of)]
                    for row in _rows(own, lags):
                        copy.write_row(row)
                        count += 1
    check(database.rows() == count, f"{count:,} readings were to be stored, {database.rows():,} are")
    return count


def _rows(readings: list[Reading], lags: random.Random) -> Iterator[tuple[str | float | datetime, ...]]:
    for place, reading in enumerate(readings):
        if place % _BATCH == 0:
            stored_at = reading.recorded_at + timedelta(microseconds=lags.randint(5_000, 1_000_000))
        if isinstance(reading, MeterReading):
            yield (
                reading.device_id,
                reading.recorded_at,
                reading.kwh_consumed_ac,
                reading.voltage,
                stored_at,
            )
        else:
            values = (reading.soc, reading.kwh_delivered_dc, reading.battery_temp)
            yield (reading.device_id, reading.recorded_at, *values, stored_at)


def _size(database: Database, kind: str) -> int:
    [(size,)] = database.owner.execute(_SIZE.format(kind=kind).encode()).fetchall()
    return int(size)


SCENARIOS: Final = (
    Scenario(
        "storage", "bytes a reading after the columnstore (TimescaleDB Community)", measure, short=False
    ),
)

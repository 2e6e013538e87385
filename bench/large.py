"""Whether cost grows with history: ingest and the 24-hour question with few and with many readings stored.

The history is of the days before, a reading a minute of each device, rolled up. Two databases on one server
take turns with the same readings.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import psycopg

from bench import history
from bench.engine import Database, Engine
from bench.ingest import SETTLE, Way, processes, warm
from bench.results import Result, Scenario, Target, check, percentiles, spread
from bench.shot import fire
from bench.sizes import Sizes
from bench.under_load import Client

_WAY: Final = Way("http", 1000)


def measure(engine: Engine, sizes: Sizes) -> Result:
    """Load both histories, and ask on the way to the large one; then write to both in turns."""
    result = Result("large", "HTTP, 1,000 readings a request, with few and with many readings stored")
    with engine.database() as few, engine.database() as many:
        for _ in _grow(engine, few, sizes, [_hours(sizes, sizes.rows_few)]):
            pass
        hours = _hours(sizes, sizes.rows_many)
        steps = sorted({hours, *(24 * 2**step for step in range(10) if 24 * 2**step < hours)})
        for end in _grow(engine, many, sizes, steps):
            result.points.append(_asked(engine, many, sizes, end))
        result.figures = {"rows_few": few.rows(), "rows_many": many.rows()}
        result.figures |= _written(engine, few, many, sizes)
    result.judge((Target("many_of_few", 0.9),))
    return result


def _hours(sizes: Sizes, rows: int) -> int:
    return max(1, round(rows / (2 * 60 * sizes.rows_vehicles)))


def _grow(engine: Engine, database: Database, sizes: Sizes, steps: list[int]) -> Iterator[datetime]:
    """Store hours, so many in all at each step, and roll them up; give the end of what is stored."""
    # More than a day ago at its end: all of it is rolled up, and what is written later is not late.
    start = engine.begin.replace(hour=0) - timedelta(hours=24 + steps[-1])
    database.owner.execute("set timezone = 'UTC'")
    database.settle_after(SETTLE["ROLLUP_SETTLE_S"])
    whole = {"start": start, "end": start + timedelta(hours=steps[-1]), "vehicles": sizes.rows_vehicles}
    database.owner.execute(history.SESSIONS.encode(), whole)
    stored = 0
    for hours in steps:
        with ThreadPoolExecutor(2) as pool:
            starts = [start + timedelta(hours=hour) for hour in range(stored, hours)]
            kinds = (history.LOAD, history.LOAD_VEHICLES)
            list(pool.map(partial(_load, database, sizes.rows_vehicles, starts), kinds))
        stored = hours
        database.owner.execute("vacuum analyze")
        database.owner.execute("call refresh_rollups()")
        database.owner.execute("vacuum analyze")
        rows, wanted = database.rows(), 2 * 60 * hours * sizes.rows_vehicles
        check(rows == wanted, f"{wanted:,} readings were to be stored, {rows:,} are")
        yield start + timedelta(hours=hours)


def _load(database: Database, vehicles: int, starts: list[datetime], statement: str) -> None:
    """Store hours of one kind of readings."""
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        for start in starts:
            connection.execute(statement.encode(), {"start": start, "vehicles": vehicles})


def _asked(engine: Engine, database: Database, sizes: Sizes, end: datetime) -> dict[str, float]:
    """Time the energy summary of the last 24 hours of what is stored."""
    chosen = random.Random(7)
    times: list[float] = []
    # Neither end of the window lies on the hour: raw rows are read at both.
    until = end - timedelta(minutes=13)
    window = {"from": (until - timedelta(hours=24)).isoformat(), "to": until.isoformat()}
    with engine.serving(database, **SETTLE) as (port, _), Client(port) as client:
        for _ in range(2 * sizes.asked):
            vehicle = f"VH-{chosen.randint(1, sizes.rows_vehicles)}"
            answer = client.get(f"/v1/analytics/performance/{vehicle}", times, **window)
            check(answer["readingsCount"]["vehicle"] > 0, f"an empty answer: {answer}")
    # The first half filled the caches.
    return {"rows": database.rows(), **percentiles("performance", times[sizes.asked :])}


def _written(engine: Engine, few: Database, many: Database, sizes: Sizes) -> dict[str, float]:
    rates: dict[str, list[float]] = {"few": [], "many": []}
    with processes(engine, few, _WAY) as (few_port, few_pids), processes(engine, many, _WAY) as (port, pids):
        both = {"few": (few, few_port, few_pids), "many": (many, port, pids)}
        for database, to, ids in both.values():
            warm(engine, database, ids, to, _WAY, sizes)
        for turn in range(sizes.rounds):
            block = _WAY.block(sizes, turn)
            # Whoever comes second finds a machine that has just worked: they change places.
            for name in ("few", "many") if turn % 2 == 0 else ("many", "few"):
                database, to, ids = both[name]
                rates[name].append(fire(engine, database, ids, block, _WAY.how(to)).per_s)
    ratios = [large / small for large, small in zip(rates["many"], rates["few"], strict=True)]
    return {
        **spread("few_per_s", rates["few"], 0),
        **spread("many_per_s", rates["many"], 0),
        **spread("many_of_few", ratios),
    }


SCENARIOS: Final = (
    Scenario(
        "large", "ingest and questions with 1 million and with 100 million readings", measure, short=False
    ),
)

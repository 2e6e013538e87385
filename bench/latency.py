"""How long a single reading waits for its commit, at the rate of the real fleet and at others.

Over HTTP from the moment that it is due until it is answered. Over MQTT until a look at the counters, which
the storing transaction writes, shows as many readings as were due: the k-th that was due is taken for the
k-th that is counted.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import psycopg

from bench.engine import Database, Engine, Load
from bench.ingest import Way, processes, warm
from bench.results import Result, Scenario, Target, check, percentiles
from bench.shot import Block
from bench.sizes import Sizes

# The fleet's own: 20,000 devices, a reading a minute each.
_REAL_RATE: Final = 333
_LOOK_S: Final = 0.001
_PATIENCE_S: Final = 30.0
_ACCEPTED: Final = "select coalesce(sum(accepted), 0)::bigint from ingest_minute"


def measure(engine: Engine, sizes: Sizes, way: Way) -> Result:
    """Send at one rate after the other; give the latencies of each, and of the real rate by name."""
    result = Result(f"latency-{way.over}", f"commit latency over {way.over.upper()}")
    with engine.database() as database, processes(engine, database, way) as (port, pids):
        warm(engine, database, pids, port, way, sizes)
        minute = 1
        for rate in sizes.latency_rates:
            count = round(rate * sizes.latency_s)
            block = Block(minute, -(-count // (2 * sizes.devices)), sizes.devices, count)
            minute += block.minutes
            rows = database.rows()
            waits, per_s = _send(engine, database, block, {**way.how(port), "rate": rate, "ahead": None})
            stored = database.rows() - rows
            check(stored == count == len(waits), f"{count:,} readings were to be stored, {stored:,} are")
            found = percentiles("latency", waits)
            result.points.append({"rate": rate, "sent_per_s": round(per_s), **found})
            if rate == _REAL_RATE or len(sizes.latency_rates) == 1:
                result.figures |= {"rate": rate, **found}
    result.judge((Target("latency_p50_ms", 10, at_least=False), Target("latency_p99_ms", 30, at_least=False)))
    return result


def _send(engine: Engine, database: Database, block: Block, how: dict[str, Any]) -> tuple[list[float], float]:
    with (
        Load({**block.spec(engine), **how}) as load,
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(database.owner_url, autocommit=True) as connection,
    ):
        engine.settle()
        if how["over"] == "http":
            load.start()
            told = load.result()
            return told["latencies"], block.readings / told["seconds"]
        before = _accepted(connection)
        load.start()
        looks = pool.submit(_watch, connection, before, block.readings)
        told = load.result()
        committed = looks.result()
    due = [told["began"] + number / how["rate"] for number in range(block.readings)]
    # What was counted by the same look was committed by then.
    waits = [at - was_due for at, was_due in zip(committed, due, strict=True)]
    return waits, block.readings / told["seconds"]


def _watch(connection: psycopg.Connection[Any], before: int, readings: int) -> list[float]:
    """Give the moment at which each reading was seen to be committed."""
    seen: list[float] = []
    end = 0.0
    while len(seen) < readings:
        count = _accepted(connection) - before
        now = time.monotonic()
        if count > len(seen):
            seen += [now] * (count - len(seen))
            end = 0.0
        end = end or now + _PATIENCE_S
        check(now < end, f"{count} of {readings} readings are stored, and no more come")
        time.sleep(_LOOK_S)
    return seen


def _accepted(connection: psycopg.Connection[Any]) -> int:
    [(count,)] = connection.execute(_ACCEPTED).fetchall()
    return int(count)


SCENARIOS: Final = (
    Scenario(
        "latency-http",
        "commit latency of single readings over HTTP, 64 connections",
        partial(measure, way=Way("http", 1, connections=64)),
    ),
    Scenario(
        "latency-mqtt",
        "commit latency of single readings over MQTT QoS 1, one connection",
        partial(measure, way=Way("mqtt", 1)),
    ),
)

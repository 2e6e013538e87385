"""Ingest beside a thousand live streams, and how long after a commit they tell of it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from bench.engine import Database, Engine, Load, usage
from bench.ingest import Way, processes, warm
from bench.results import Result, Scenario, Target, check, percentiles, spread
from bench.shot import Block, Shot, fire
from bench.sizes import Sizes

_BATCHES: Final = Way("http", 1000)
# Between two readings whose way to the clients is followed: not in step with looks, which are a second apart.
_PROBE_S: Final = 0.37
# What was committed last is told by then.
_LAST_S: Final = 4.0


# The fleet's own: 20,000 devices, a reading a minute each.
_REAL_RATE: Final = 333


class Streams:
    """A process that holds streams; see bench/listen.py."""

    def __init__(self, port: int, clients: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.listen"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"port": port, "clients": clients}) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout is not None
        check(self._process.stdout.readline() == "ready\n", "not all streams have begun; it says why above")

    def end(self) -> dict[str, Any]:
        """End them; give what came."""
        told, _ = self._process.communicate(timeout=60)
        found: dict[str, Any] = json.loads(told)
        return found

    def kill(self) -> None:
        """End the process, also where something else has failed."""
        self._process.kill()
        self._process.wait()


@contextmanager
def _streams(port: int, clients: int) -> Iterator[Streams]:
    streams = Streams(port, clients)
    try:
        yield streams
    finally:
        streams.kill()


def measure(engine: Engine, sizes: Sizes) -> Result:
    """Take turns: batches with no stream open, and with all; then delays at the fleet's own rate."""
    result = Result("stream", "ingest beside live streams, and the delay from a commit to their events")
    bare: list[Shot] = []
    beside: list[Shot] = []
    held: list[int] = []
    with engine.database() as database, processes(engine, database, _BATCHES) as (port, pids):
        warm(engine, database, pids, port, _BATCHES, sizes)
        minutes = max(1, sizes.minutes // 2)
        blocks = iter([Block(1 + turn * minutes, minutes, sizes.devices) for turn in range(2 * sizes.rounds)])
        for block in blocks:
            bare.append(fire(engine, database, pids, block, _BATCHES.how(port)))
            with _streams(port, sizes.stream_clients) as streams:
                beside.append(fire(engine, database, pids, next(blocks), _BATCHES.how(port)))
                held.append(streams.end()["held"])
        first = 1 + 2 * sizes.rounds * minutes
        # Of what was written just before nothing is told any more.
        time.sleep(_LAST_S)
        # As many of either kind.
        count = 2 * round(_REAL_RATE * sizes.latency_s / 2)
        block = Block(first, -(-count // (2 * sizes.devices)), sizes.devices, count)
        with _streams(port, sizes.stream_clients) as streams:
            committed = _write(engine, database, port, block)
            time.sleep(_LAST_S)
            found = streams.end()
        held.append(found["held"])
        delays = _delays(committed, found)
        peak = usage(pids[0]).peak_bytes
    result.figures = {"clients": sizes.stream_clients, "clients_held": min(held)}
    result.figures |= spread("bare_per_s", [shot.per_s for shot in bare], 0)
    result.figures |= spread("beside_per_s", [shot.per_s for shot in beside], 0)
    ratios = [with_streams.per_s / without.per_s for with_streams, without in zip(beside, bare, strict=True)]
    result.figures |= spread("beside_of_bare", ratios)
    for name, shots in (("bare", bare), ("beside", beside)):
        result.figures[f"{name}_service_us"] = round(
            statistics.median(shot.cpu_us["service"] for shot in shots), 2
        )
    result.figures |= percentiles("delay", delays)
    result.figures["peak_mb"] = round(peak / 1e6, 1)
    result.judge(
        (
            Target("clients_held", sizes.stream_clients),
            Target("beside_of_bare", 0.7),
            Target("delay_p99_ms", 2500, at_least=False),
        )
    )
    return result


def _write(engine: Engine, database: Database, port: int, block: Block) -> dict[str, float]:
    """Write at the real rate, and a reading of a new device now and then; give when each was committed."""
    rows = database.rows()
    how = _BATCHES._replace(batch=1).how(port) | {"rate": _REAL_RATE}
    with Load({**block.spec(engine), **how}) as load, ThreadPoolExecutor(1) as pool:
        load.start()
        writing = pool.submit(load.result)
        committed = {}
        with httpx.Client(trust_env=False) as client:
            while not writing.done():
                name = f"PROBE-{len(committed)}"
                reading = {
                    "meterId": name,
                    "kwhConsumedAc": 0.1,
                    "voltage": 230.0,
                    "timestamp": datetime.now(UTC).isoformat(),
                }
                answer = client.post(f"http://127.0.0.1:{port}/v1/telemetry", json=reading)
                check(answer.status_code == 201, f"a reading was answered {answer.text}")
                committed[name] = time.monotonic()
                time.sleep(_PROBE_S)
        told = writing.result()
    stored, wanted = database.rows() - rows, told["readings"] + len(committed)
    check(stored == wanted, f"{wanted:,} readings were to be stored, {stored:,} are")
    return committed


def _delays(committed: dict[str, float], found: dict[str, Any]) -> list[float]:
    """Give how long after its commit each client that looks was told of each reading that was followed."""
    for name in committed:
        told = len(found["told"].get(name, []))
        check(told == found["looking"], f"{found['looking']} clients were to be told of {name}, {told} were")
    return [at - moment for name, moment in committed.items() for at in found["told"][name]]


SCENARIOS: Final = (
    Scenario("stream", "batches of 1,000 beside 1,000 live streams; from a commit to their events", measure),
)

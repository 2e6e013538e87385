"""How many readings a second are stored, over HTTP and MQTT, beside the baselines."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

from bench.baselines import Baselines
from bench.engine import Database, Engine
from bench.results import Result, Scenario, Target, spread
from bench.shot import Block, Shot, fire
from bench.sizes import Sizes

# An hour is not rolled up before: what is sent counts as what a live fleet sends, and not as late.
SETTLE: Final = {"ROLLUP_SETTLE_S": 86_400}
# Readings that the load may be ahead of commits, so that the broker's queue stays short.
_AHEAD: Final = 60_000
_MEMORY: Final = Target("peak_mb", 200, at_least=False)


class Way(NamedTuple):
    """A way in: over what, how many readings at once, how many connections or workers, repeated or not."""

    over: str
    batch: int
    connections: int = 16
    workers: int = 1
    mixed: bool = False
    ndjson: bool = False
    repeat: bool = False
    targets: tuple[Target, ...] = ()

    def how(self, port: int) -> dict[str, Any]:
        """Say it to a load."""
        if self.over == "mqtt":
            return {"over": "mqtt", "port": port, "batch": self.batch, "ahead": _AHEAD}
        named = ("over", "batch", "connections", "mixed", "ndjson")
        return {"port": port, **{name: getattr(self, name) for name in named}}

    def block(self, sizes: Sizes, turn: int) -> Block:
        """Give the readings of a turn; those of a message are of one device, a minute apart.

        The minute after them is left free, see `warm`.
        """
        if self.over == "mqtt" and self.batch > 1:
            devices = max(1, sizes.devices * sizes.minutes // self.batch)
            return Block(1 + turn * (self.batch + 1), self.batch, devices)
        most = sizes.messages if self.over == "mqtt" else sizes.requests * self.batch
        return Block(1 + turn * (sizes.minutes + 1), sizes.minutes, sizes.devices).most(most)


@contextmanager
def processes(engine: Engine, database: Database, way: Way) -> Iterator[tuple[int, list[int]]]:
    """Run what takes readings in; give the port to send them to, and the process ids."""
    with ExitStack() as stack:
        if way.over == "http":
            port, pid = stack.enter_context(engine.serving(database, **SETTLE))
            yield port, [pid]
        else:
            share = {"MQTT_SHARE": "fleetwatt"} if way.workers > 1 else {}
            pids = [
                stack.enter_context(engine.working(database, number, **SETTLE, **share))
                for number in range(way.workers)
            ]
            yield engine.broker_port, pids


def warm(
    engine: Engine, database: Database, pids: list[int], port: int, way: Way, sizes: Sizes, minute: int = 0
) -> None:
    """Send a minute of the fleet, so that all its devices and today's chunks are there.

    After a repeat, so that writers no longer look up each reading: they do until a batch is all new.
    """
    batch = max(way.batch, 500) if way.over == "http" else 1
    fire(engine, database, pids, Block(minute, 1, sizes.devices), way._replace(batch=batch).how(port))


def measure(engine: Engine, sizes: Sizes, name: str, what: str, way: Way) -> Result:
    """Take turns: psql's copy, ours, ours once more where it is repeated, and one transaction a reading.

    The copy is made twice: into bare hypertables, and into those of a second database of ours, which log late
    hours and keep the hot state.
    """
    copied: list[float] = []
    copied_here: list[float] = []
    one_by_one: list[float] = []
    shots: list[Shot] = []
    again: list[Shot] = []
    with (
        engine.database() as database,
        engine.database() as twin,
        processes(engine, database, way) as (port, pids),
    ):
        baselines, own_tables = Baselines(engine, database), Baselines(engine, twin)
        baselines.copy(Block(0, 1, sizes.devices))
        own_tables.copy(Block(0, 1, sizes.devices), "public")
        warm(engine, database, pids, port, way, sizes)
        for turn in range(sizes.rounds):
            block = way.block(sizes, turn)
            # Ours right after what it is held against: a minute later a shared machine may be another one.
            copied.append(baselines.copy(block))
            shots.append(fire(engine, database, pids, block, way.how(port)))
            copied_here.append(own_tables.copy(block, "public"))
            if way.repeat:
                again.append(fire(engine, database, pids, block, way.how(port), repeated=True))
                warm(engine, database, pids, port, way, sizes, block.first + block.minutes)
            # Fewer of the same rows: it is slow.
            one_by_one.append(baselines.transactions(block.most(sizes.transactions)))
    result = Result(name, what, {"batch": way.batch, "over": way.over, "readings": block.readings})
    rates = [shot.per_s for shot in shots]
    result.figures |= spread("per_s", rates, 0)
    result.figures |= spread("of_copy", _ratios(rates, copied))
    result.figures |= spread("of_own_copy", _ratios(rates, copied_here))
    result.figures |= spread("of_one_by_one", _ratios(rates, one_by_one), 2)
    if again:
        result.figures |= spread("repeat_ratio", _ratios([shot.per_s for shot in again], rates))
    for part in ("service", "postgres", "broker", "load"):
        used = statistics.median(shot.cpu_us[part] for shot in shots)
        result.figures[f"cpu_{part}_us"] = round(used, 2)
    result.figures["peak_mb"] = round(max(shot.peak_mb for shot in shots + again), 1)
    result.figures |= spread("copy_per_s", copied, 0) | spread("own_copy_per_s", copied_here, 0)
    result.figures |= spread("one_by_one_per_s", one_by_one, 0)
    result.judge((*way.targets, _MEMORY))
    return result


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def _scenario(name: str, what: str, way: Way, *, short: bool = True) -> Scenario:
    return Scenario(name, what, partial(measure, name=name, what=what, way=way), short)


_REPEAT: Final = Target("repeat_ratio", 0.7)
SCENARIOS: Final = (
    _scenario(
        "http-1000",
        "HTTP, 1,000 readings of a kind a request, 16 connections",
        Way(
            "http", 1000, repeat=True, targets=(Target("of_copy", 0.55), Target("of_own_copy", 0.55), _REPEAT)
        ),
    ),
    _scenario("http-mixed", "the same, both kinds in a request", Way("http", 1000, mixed=True), short=False),
    _scenario("http-ndjson", "the same as NDJSON", Way("http", 1000, ndjson=True), short=False),
    _scenario(
        "http-1",
        "HTTP, one reading a request, 64 connections",
        Way("http", 1, connections=64, targets=(Target("of_one_by_one", 2),)),
    ),
    *(
        _scenario(
            f"http-{batch}",
            f"HTTP, {batch:,} readings of a kind a request, 16 connections",
            Way("http", batch),
            short=False,
        )
        for batch in (10, 100, 5000)
    ),
    _scenario(
        "mqtt-1",
        "MQTT QoS 1, one reading a message, one worker",
        Way("mqtt", 1, targets=(Target("of_one_by_one", 8),)),
    ),
    _scenario("mqtt-1-workers", "MQTT QoS 1, one reading a message, two workers", Way("mqtt", 1, workers=2)),
    _scenario(
        "mqtt-25",
        "MQTT QoS 1, 25 readings a message, one worker",
        Way("mqtt", 25, repeat=True, targets=(Target("of_copy", 0.4), Target("of_own_copy", 0.4), _REPEAT)),
    ),
)

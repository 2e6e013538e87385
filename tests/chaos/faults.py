"""The faults. Each function does its harm and returns when that is over, whatever the engine does then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import psycopg

from tests.chaos.engine import GRACE_S, Engine, descendants, guarded
from tests.chaos.replicated import ReplicatedEngine

# A full disk is felt as soon as a table needs another page.
_FELT_S: Final = 20.0


class Harm:
    """What a fault works with: the engine, chance, how long it lasts, and notes for the report."""

    def __init__(self, engine: Engine, random: Random, lasts_s: float) -> None:
        self.engine = engine
        self.random = random
        self.lasts_s = lasts_s
        self.exit_codes: list[int | None] = []
        self.problems: list[str] = []
        self.notes: list[str] = []

    def kill(self, pid: int) -> None:
        """Kill a process with the signal that leaves it no time."""
        os.kill(pid, signal.SIGKILL)


async def kill_service(harm: Harm) -> None:
    """Kill (-9) the process that answers requests, or the one that watches over it."""
    name = harm.random.choice(harm.engine.services)
    watcher = harm.random.random() < 0.5
    harm.kill(harm.engine.pid(name) if watcher else harm.engine.server_pid(name))


async def kill_worker(harm: Harm) -> None:
    """Kill (-9) an MQTT worker."""
    harm.kill(harm.engine.pid(harm.random.choice(harm.engine.workers)))


async def kill_postmaster(harm: Harm) -> None:
    """Kill (-9) PostgreSQL's postmaster: its other processes end in their own time."""
    harm.kill(harm.engine.pid("postgres"))


async def kill_backend(harm: Harm) -> None:
    """Kill (-9) a server process that writes: PostgreSQL ends all others and recovers."""
    async with harm.engine.admin() as connection:
        cursor = await connection.execute(
            "select pid from pg_stat_activity where application_name = 'fleetwatt write' order by pid"
        )
        harm.kill(harm.random.choice([row[0] for row in await cursor.fetchall()]))


async def restart_broker(harm: Harm) -> None:
    """Restart the broker by SIGTERM, at which it saves what it holds."""
    harm.exit_codes.append(await harm.engine.stop("mosquitto"))
    await harm.engine.start("mosquitto")


async def kill_broker(harm: Harm) -> None:
    """Kill (-9) the broker: it loses what it took since its last save, as the manual says."""
    harm.kill(harm.engine.pid("mosquitto"))


async def freeze_database(harm: Harm) -> None:
    """Stop all of PostgreSQL's processes in their tracks (SIGSTOP)."""
    postmaster = harm.engine.pid("postgres")
    os.kill(postmaster, signal.SIGSTOP)
    pids = [postmaster, *descendants(postmaster)]
    # Should we die now, a guard lets them go on: a stopped process hears no other signal.
    with guarded("kill -CONT " + " ".join(map(str, pids))):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(harm.lasts_s)


async def kill_while_frozen(harm: Harm) -> None:
    """Kill (-9) services and workers while the database stands still and their buffers hold readings."""
    frozen = asyncio.create_task(freeze_database(harm))
    await asyncio.sleep(harm.lasts_s * harm.random.uniform(0.3, 0.8))
    for name in [*harm.engine.services, *harm.engine.workers]:
        harm.kill(harm.engine.pid(name))
    await frozen


async def cut_connections(harm: Harm) -> None:
    """Cut connections again and again: by resets on the way, to database and broker, and by the database."""
    until = asyncio.get_running_loop().time() + harm.lasts_s
    while True:
        way = harm.random.choice(["database", "broker", "terminate"])
        if way == "database":
            harm.engine.database_proxy.cut()
        elif way == "broker":
            harm.engine.broker_proxy.cut()
        else:
            async with harm.engine.admin() as connection:
                await connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where application_name like 'fleetwatt%'"
                )
        if asyncio.get_running_loop().time() > until:
            return
        await asyncio.sleep(harm.random.uniform(0.1, 1.0))


async def fill_disk(harm: Harm) -> None:
    """Fill the disk under the tables: the database refuses what needs another page."""
    await _fill_up(harm, "data")


async def fill_wal(harm: Harm) -> None:
    """Fill the disk under the write-ahead log: the database panics, and starts again once there is room."""
    await _fill_up(harm, "wal")


async def _fill_up(harm: Harm, disk: str) -> None:
    """Fill a disk; free it again a while after the database has felt it."""
    ballast = harm.engine.disks[disk] / "ballast"
    database = harm.engine.processes["postgres"]
    since = database.logged
    loop = asyncio.get_running_loop()
    began, felt_at = loop.time(), None
    try:
        while felt_at is None or loop.time() - felt_at < harm.lasts_s:
            # Again and again: a server that restarts frees some, and would find room.
            await asyncio.to_thread(_fill, ballast)
            if felt_at is None and disk == "wal":
                await _press(harm.engine)
            await asyncio.sleep(0.2)
            if felt_at is None and database.has_logged("No space left on device", since):
                felt_at = loop.time()
            if felt_at is None and loop.time() - began > _FELT_S:
                harm.problems.append("the database did not notice that its disk was full")
                return
    finally:
        ballast.unlink()
    panics = database.has_logged("PANIC", since)
    harm.notes.append("PANIC" if panics else "no PANIC")
    if disk == "wal" and not panics:
        harm.problems.append("the write-ahead log had no room, and the database did not panic")


async def _press(engine: Engine) -> None:
    """Use up a segment of the write-ahead log: the room that was laid by lasts for some."""
    with contextlib.suppress(psycopg.Error, OSError):
        async with engine.admin() as connection:
            await connection.execute("select pg_logical_emit_message(false, 'chaos', 'fill')")
            await connection.execute("select pg_switch_wal()")


def _fill(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


async def slow_database(harm: Harm) -> None:
    """Move the database far away, behind a thin line."""
    proxy = harm.engine.database_proxy
    proxy.delay_s, proxy.bytes_per_s = harm.random.uniform(0.05, 0.3), 50_000.0
    try:
        await asyncio.sleep(harm.lasts_s)
    finally:
        proxy.delay_s, proxy.bytes_per_s = 0.0, None


async def rolling_restart(harm: Harm) -> None:
    """Restart services and workers by SIGTERM, one after the other, each once the one before is ready."""
    names = [*harm.engine.services, *harm.engine.workers]
    harm.random.shuffle(names)
    for name in names:
        await _stop(harm, name)
        await harm.engine.start(name)
        await harm.engine.until_ready(name)


async def _stop(harm: Harm, name: str) -> float:
    """End a service or worker by SIGTERM; give how long (s) it took. It must end well within its grace."""
    began = asyncio.get_running_loop().time()
    code = await harm.engine.stop(name)
    took_s = asyncio.get_running_loop().time() - began
    harm.exit_codes.append(code)
    if code != 0:
        harm.problems.append(f"{name} ended with {code} after {took_s:.1f} s of {GRACE_S} s")
    return took_s


async def stop_while_frozen(harm: Harm) -> None:
    """Restart a service and a worker by SIGTERM while the database stands still: they cannot drain."""
    names = [harm.random.choice(harm.engine.services), harm.random.choice(harm.engine.workers)]
    frozen = asyncio.create_task(freeze_database(harm))
    await asyncio.sleep(0.5)
    took = await asyncio.gather(*(_stop(harm, name) for name in names))
    harm.notes += [f"{name} took {took_s:.1f} s" for name, took_s in zip(names, took, strict=True)]
    for name in names:
        await harm.engine.start(name)
    await frozen


async def database_down(harm: Harm) -> None:
    """Stop the database, and start it again after a while."""
    harm.exit_codes.append(await harm.engine.stop("postgres"))
    await asyncio.sleep(harm.lasts_s)
    await harm.engine.start("postgres")


async def scale_out(harm: Harm) -> None:
    """Add a service and a worker, kill (-9) one of each, and keep another worker away before it comes back.

    The broker deals that worker its share all the while; under its client id it gets it when it is back.
    """
    engine = harm.engine
    away, *others = harm.random.sample(engine.workers, len(engine.workers))
    await engine.kill(away)
    for name in engine.spares:
        if name not in engine.processes:
            await engine.start(name)
    await asyncio.sleep(harm.lasts_s)
    harm.kill(engine.pid(harm.random.choice(others)))
    harm.kill(engine.pid(harm.random.choice(engine.services)))
    await asyncio.sleep(harm.lasts_s)
    await engine.start(away)
    for name in [*engine.spares, away]:
        await engine.until_ready(name)
    harm.notes.append(f"{len(engine.services)} services, {len(engine.workers)} workers at the end")


async def fail_over(harm: Harm) -> None:
    """Kill (-9) the primary for good and promote its replica, which each commit had to wait for."""
    engine = harm.engine
    assert isinstance(engine, ReplicatedEngine)
    if engine.replica is None:
        await engine.add_replica()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await engine.kill_primary()
    await asyncio.sleep(harm.lasts_s)
    await engine.promote()
    harm.notes.append(f"promoted {loop.time() - began:.1f} s after the kill")


async def lock_table(harm: Harm) -> None:
    """Lock a table as maintenance by somebody else would."""
    async with harm.engine.admin() as connection, connection.transaction():
        table = harm.random.choice(["meter_reading", "vehicle_reading", "meter_state", "ingest_minute"])
        statement = psycopg.sql.SQL("lock table {} in access exclusive mode")
        await connection.execute(statement.format(psycopg.sql.Identifier(table)))
        await asyncio.sleep(harm.lasts_s)


class Fault(NamedTuple):
    """A fault: what it does, how long (s) it lasts in the full and in the short form."""

    do: Callable[[Harm], Awaitable[Any]]
    lasts_s: float = 0.0
    short_s: float = 0.0
    # How many times a round of the full form plays it: those that take no time, more often.
    often: int = 3
    # Devices of the broker may miss what it acknowledged.
    excuses_mqtt: bool = False
    # Mosquitto forgets shared subscriptions: only publishers that read why it drops a message lose none.
    needs_reason: bool = False
    # Wants an engine of one worker, which does not share.
    alone: bool = False
    small_disk: bool = False
    # Wants an engine with three workers, two services, and one more of each to add.
    spares: bool = False
    # Wants an engine whose primary has a synchronous replica.
    replicated: bool = False
    # Part of the short form: what takes long by its nature, or is covered by another one, is not.
    in_short: bool = True
    # Long enough, even in the short form, for the circuit breaker to open, and for a backlog.
    opens_breaker: bool = False


FAULTS: Final = {
    "kill-service": Fault(kill_service, in_short=False),
    "kill-worker": Fault(kill_worker, in_short=False),
    "kill-postmaster": Fault(kill_postmaster),
    "kill-backend": Fault(kill_backend, in_short=False),
    "restart-broker": Fault(restart_broker, needs_reason=True),
    "restart-broker-alone": Fault(restart_broker, alone=True, often=2),
    "freeze-database": Fault(freeze_database, 20.0, 4.0, often=1, in_short=False),
    "kill-while-frozen": Fault(kill_while_frozen, 6.0, 3.0, often=1),
    "stop-while-frozen": Fault(stop_while_frozen, 30.0, often=1, in_short=False),
    "cut-connections": Fault(cut_connections, 8.0, 2.0, often=1),
    "slow-database": Fault(slow_database, 15.0, 1.5, often=1),
    "rolling-restart": Fault(rolling_restart),
    "database-down": Fault(database_down, 60.0, 3.0, often=1, opens_breaker=True),
    "lock-table": Fault(lock_table, 15.0, 1.5, often=1, in_short=False),
    "scale-out": Fault(scale_out, 5.0, 1.0, often=1, spares=True, in_short=False),
    "fail-over": Fault(fail_over, 2.0, 0.2, often=1, replicated=True, in_short=False),
    "kill-broker": Fault(kill_broker, excuses_mqtt=True, needs_reason=True, often=1, in_short=False),
    "full-disk": Fault(fill_disk, 10.0, 2.0, often=1, small_disk=True),
    "full-wal": Fault(fill_wal, 10.0, 2.0, often=1, small_disk=True),
}

"""One round: a load, a fault at a random moment, recovery, the drain of the backlog, and the count."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from random import Random
from time import monotonic
from typing import Any, Final

import httpx
import msgspec
import psycopg
from psycopg import AsyncConnection

from tests.chaos.engine import Engine
from tests.chaos.faults import FAULTS, Fault, Harm
from tests.chaos.ledger import Account, Ledger, uncounted
from tests.chaos.load import Load

# How many HTTP clients, and versions of MQTT publishers: those of 4, which is 3.1.1, are not told that a
# message was dropped.
_CLIENTS: Final = 6
_PUBLISHERS: Final = (5, 4, 5, 4)
_SHORT_CLIENTS: Final = 4
_SHORT_PUBLISHERS: Final = (5, 4)
_RECOVERY_S: Final = 90.0
_DRAIN_S: Final = 90.0
# How old, at most, live readings are when they are stored while a backlog drains (95 % of them).
_LIVE_LAG_MAX_S: Final = 10.0
_BREAKER: Final = re.compile(r"^fleetwatt_breaker_state(?:\{.*\})? ([0-9.]+)$", re.MULTILINE)
_WORDS: Final = ("closed", "half_open", "open")


_NEVER: Final = (
    "lost", "changed", "strangers", "states_wrong", "letters_lost", "letters_wrong", "sessions_wrong",
)  # fmt: skip


class Backlog(msgspec.Struct, kw_only=True):
    """How what was sent before the fault's end came in, and how live readings fared meanwhile."""

    readings: int
    seconds: float
    largest_batch: int
    live_lag_p95_s: float


class Result(msgspec.Struct, kw_only=True):
    """What one round found."""

    fault: str
    seed: str
    account: Account
    # By way in (h0, h1: the services; q: the broker): seconds from the fault's end to the first new reading.
    recovery_s: dict[str, float]
    problems: list[str]
    causes: dict[str, int]
    exit_codes: list[int | None]
    notes: list[str]
    breaker: list[str]
    backlog: Backlog | None
    slowest_answer_s: float

    def failures(self, recovery_max_s: float) -> list[str]:
        """List everything that must not be."""
        account = self.account
        wrong = list(dict.fromkeys(self.problems))[:5]
        for name in _NEVER:
            found = getattr(account, name)
            if found:
                wrong.append(f"{len(found)} {name}: {found[:3]}")
        if account.twice:
            wrong.append(f"{account.twice} stored twice")
        wrong += [
            f"{way} recovered after {seconds:.1f} s, more than {recovery_max_s:.0f} s"
            for way, seconds in self.recovery_s.items()
            if seconds > recovery_max_s
        ]
        if (
            self.backlog
            and FAULTS[self.fault].opens_breaker
            and self.backlog.live_lag_p95_s > _LIVE_LAG_MAX_S
        ):
            wrong.append(f"live readings waited {self.backlog.live_lag_p95_s:.1f} s for the backlog")
        return wrong


async def play(engine: Engine, fault_name: str, seed: str, *, short: bool) -> Result:
    """Play one round. What the fault is, where and when it strikes follows from the seed."""
    fault = FAULTS[fault_name]
    random = Random(f"{seed}/{fault_name}")
    harm = Harm(engine, random, fault.short_s if short else fault.lasts_s)
    ledger = Ledger("r" + "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=10)))
    states: list[str] = []
    load = _load(engine, ledger, fault, f"{seed}/{fault_name}", short=short)
    ways = [*(f"h{number}" for number in range(len(engine.services))), "q"]
    async with load, _watching(engine.urls[0], states):
        await _until_stored(engine, ledger, ways, None)
        await asyncio.sleep(random.uniform(0.3, 1.5 if short else 4.0))
        struck = monotonic()
        await fault.do(harm)
        ended = datetime.now(UTC)
        problems = harm.problems
        if not await _until_stored(engine, ledger, ways, ended):
            problems.append(f"no recovery in {_RECOVERY_S:.0f} s")
        away = (struck, monotonic())
        await asyncio.sleep(random.uniform(0.5, 1.0 if short else 2.0))
        if not await load.drain(_DRAIN_S):
            problems.append(f"senders were not done in {_DRAIN_S:.0f} s")
    async with engine.admin() as connection:
        await _until_settled(connection, ledger, patience_s=6.0 if fault.excuses_mqtt else 30.0)
        account = await ledger.account(connection, excused="q-" if fault.excuses_mqtt else None, away=away)
        recovery = {way: await _recovery(connection, ledger, way, ended) for way in ways}
        backlog = await _backlog(connection, ledger, ended)
        difference = await uncounted(connection)
    if difference:
        problems.append(f"the ingest counters differ from the rows by {difference}")
    if fault.opens_breaker and states and "open" not in states:
        problems.append(f"the breaker never opened: {states}")
    if states and states[-1] != "closed":
        problems.append(f"the breaker did not close: {states}")
    return Result(
        fault=fault_name,
        seed=seed,
        account=account,
        recovery_s={way: seconds for way, seconds in recovery.items() if seconds is not None},
        problems=problems + load.problems,
        causes=dict(load.causes),
        exit_codes=harm.exit_codes,
        notes=harm.notes,
        breaker=states,
        backlog=backlog,
        slowest_answer_s=load.slowest_s,
    )


def _load(engine: Engine, ledger: Ledger, fault: Fault, seed: str, *, short: bool) -> Load:
    """Make the senders of a round."""
    publishers: tuple[int, ...] = _SHORT_PUBLISHERS if short else _PUBLISHERS
    if fault.needs_reason and len(engine.workers) > 1:
        publishers = tuple(5 for _ in publishers)
    return Load(
        ledger,
        engine.urls,
        engine.mqtt_port,
        clients=_SHORT_CLIENTS if short else _CLIENTS,
        publishers=publishers,
        seed=seed,
    )


async def _recovery(
    connection: AsyncConnection[Any], ledger: Ledger, way: str, ended: datetime | None
) -> float | None:
    """Give the seconds from the fault's end until readings that were made after it came in steadily.

    That is the first commit of one, or the end of the last standstill: a process that is about to end may
    still store something. None while there is no such reading.
    """
    cursor = await connection.execute(
        "with r as (select recorded_at, ingested_at, "
        "ingested_at - lag(ingested_at) over (order by ingested_at) as pause "
        "from chaos.reading where device_id like %(like)s) "
        "select extract(epoch from greatest(min(ingested_at) filter (where recorded_at > %(ended)s), "
        "max(ingested_at) filter (where ingested_at > %(ended)s and pause > interval '1 second' "
        "and exists (select from r where recorded_at > %(ended)s))) - %(ended)s)::float8 from r",
        {"like": f"{ledger.name}-{way}-%", "ended": ended or datetime(2000, 1, 1, tzinfo=UTC)},
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def _backlog(connection: AsyncConnection[Any], ledger: Ledger, ended: datetime) -> Backlog | None:
    """Tell how what was sent before the fault's end came in after it; a transaction has one `ingested_at`."""
    values = {"like": f"{ledger.name}-%", "ended": ended}
    cursor = await connection.execute(
        "select sum(n)::int, extract(epoch from max(ingested_at) - %(ended)s)::float8, max(n)::int, "
        "max(ingested_at) from ("
        "select ingested_at, count(*) as n from chaos.reading "
        "where device_id like %(like)s and recorded_at <= %(ended)s and ingested_at > %(ended)s "
        "group by ingested_at) as batches",
        values,
    )
    row = await cursor.fetchone()
    if not row or not row[0]:
        return None
    cursor = await connection.execute(
        "select percentile_cont(0.95) within group (order by extract(epoch from ingested_at - recorded_at)) "
        "from chaos.reading where device_id like %(like)s "
        "and recorded_at > %(ended)s and recorded_at <= %(drained)s",
        {**values, "drained": row[3]},
    )
    lag = await cursor.fetchone()
    return Backlog(
        readings=row[0],
        seconds=row[1],
        largest_batch=row[2],
        live_lag_p95_s=float(lag[0]) if lag and lag[0] is not None else 0.0,
    )


async def _until_stored(engine: Engine, ledger: Ledger, ways: list[str], since: datetime | None) -> bool:
    """Wait until each way in has stored a reading made after `since`; False if that took too long."""
    waiting = list(ways)
    try:
        async with asyncio.timeout(_RECOVERY_S):
            while waiting:
                with contextlib.suppress(psycopg.Error, OSError):
                    async with engine.admin() as connection:
                        while waiting:
                            waiting = [
                                way
                                for way in waiting
                                if await _recovery(connection, ledger, way, since) is None
                            ]
                            await asyncio.sleep(0.2)
                await asyncio.sleep(0.2)
    except TimeoutError:
        return False
    return True


async def _until_settled(connection: AsyncConnection[Any], ledger: Ledger, patience_s: float) -> None:
    """Wait until everything acknowledged can be there, or nothing more has come for a while."""
    loop = asyncio.get_running_loop()
    before, since = -1, loop.time()
    while True:
        complete, found = await ledger.is_there(connection)
        if complete:
            return
        if found != before:
            before, since = found, loop.time()
        elif loop.time() - since > patience_s:
            return
        await asyncio.sleep(0.3)


@contextlib.asynccontextmanager
async def _watching(url: str, states: list[str]) -> AsyncIterator[None]:
    """Note each change of a service's circuit breaker."""

    async def watch() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=2.0, trust_env=False) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    match = _BREAKER.search((await client.get("/metrics")).text)
                    word = _WORDS[int(float(match[1]))] if match else None
                    if word and states[-1:] != [word]:
                        states.append(word)
                await asyncio.sleep(0.2)

    task = asyncio.create_task(watch())
    try:
        yield
        # The last word counts: let it be one of after the drain.
        await asyncio.sleep(0.5)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def total(results: list[Result]) -> Counter[str]:
    """Add up why senders tried again."""
    return sum((Counter(result.causes) for result in results), Counter[str]())

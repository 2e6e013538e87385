"""Engines of several processes that come, go and are killed under load, over both ways in: all is counted."""

from __future__ import annotations

import asyncio

from tests.chaos.engine import Engine
from tests.chaos.replicated import ReplicatedEngine
from tests.chaos.rounds import Result, play

# Other tests run beside these: time alone must not fail them.
_RECOVERY_MAX_S = 30.0


def check(result: Result) -> None:
    """Hold a round's account: all that was sent was acknowledged in the end, and is stored once."""
    assert result.failures(_RECOVERY_MAX_S) == []
    account = result.account
    assert account.sent == account.acknowledged == account.stored
    assert account.acknowledged > 300
    assert account.sessions > 0


def test_workers_and_services_come_and_go() -> None:
    """Three workers and two services become four and three, two and one of which are killed meanwhile."""
    asyncio.run(_scale_out())


async def _scale_out() -> None:
    async with Engine(services=2, workers=3, spares=1) as engine:
        result = await play(engine, "scale-out", "suite", short=True)
        assert result.recovery_s.keys() == {"h0", "h1", "q"}
        # The one that was added stores, too.
        async with engine.admin() as connection:
            cursor = await connection.execute(
                "select count(*) from chaos.reading where device_id like '%-h2-%'"
            )
            row = await cursor.fetchone()
            assert row is not None
            assert row[0] > 0
            cursor = await connection.execute(
                "select distinct split_part(writer, '/', 1), split_part(writer, '/', 2) from ingest_minute"
            )
            writers = await cursor.fetchall()
    assert {name for way, name in writers if way == "mqtt"} == {f"chaos-{number}" for number in range(4)}
    assert len([name for way, name in writers if way == "http"]) == 3
    check(result)


def test_a_replica_takes_over() -> None:
    """The primary is killed for good, its synchronous replica promoted: services and workers find it."""
    asyncio.run(_fail_over())


async def _fail_over() -> None:
    async with ReplicatedEngine(services=1, workers=2) as engine:
        result = await play(engine, "fail-over", "suite", short=True)
    assert result.recovery_s.keys() == {"h0", "q"}
    check(result)

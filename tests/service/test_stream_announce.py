"""Commits are announced apart from ingest: seldom, and whatever becomes of it ingest does not notice."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import psycopg
import pytest

from service.ingest.pipeline import Pipeline
from service.settings import Settings
from service.stream.announce import Announcer
from tests.support.serving import PATIENCE_S
from tests.support.strategies import decoded, meter, serving

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

CHANNEL = "fleetwatt_states"


async def test_commits_are_announced_seldom(settings: Settings, owner: psycopg.AsyncConnection[Any]) -> None:
    """The first one at once, and the last one too; far from each."""
    await owner.execute(f"listen {CHANNEL}")
    commits = 40
    async with Announcer(settings) as announcer, Pipeline(settings, "test", None, announcer.note) as pipeline:
        first = owner.notifies(timeout=PATIENCE_S, stop_after=1)
        waiting = asyncio.create_task(anext(first))
        await pipeline.submit(decoded(meter("m-first")), "test")
        assert (await waiting).channel == CHANNEL
        await first.aclose()
        for minute in range(commits):
            await pipeline.submit(decoded(meter("m-1", minute)), "test")
        heard = [notice async for notice in owner.notifies(timeout=1.5)]
    assert 1 <= len(heard) < commits


async def test_nothing_is_announced_where_nothing_is_stored(
    settings: Settings, owner: psycopg.AsyncConnection[Any]
) -> None:
    """An idle engine leaves the database alone."""
    await owner.execute(f"listen {CHANNEL}")
    async with serving(settings) as client:
        assert (await client.get("/v1/analytics/stats")).status_code == 200
        assert [notice async for notice in owner.notifies(timeout=1.0)] == []


async def test_ingest_does_not_wait_for_it(settings: Settings) -> None:
    """An announcement that hangs, or has no server to go to, holds up no commit and no end of the process."""
    # The kernel takes the connections; nobody reads from them.
    with socket.create_server(("127.0.0.1", 0), backlog=20) as silent:
        for minute, port in enumerate((1, silent.getsockname()[1])):
            nowhere = Settings(database_url=f"postgresql://127.0.0.1:{port}/none")
            async with (
                Announcer(nowhere) as announcer,
                Pipeline(settings, "test", None, announcer.note) as pipeline,
            ):
                for meter_id in ("m-1", "m-2", "m-3"):
                    outcome = await pipeline.submit(decoded(meter(meter_id, minute)), "test")
                    assert outcome.accepted == 1

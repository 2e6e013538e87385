"""The hub itself: when it looks, at what, and what it keeps of that."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from service.ingest.pipeline import Pipeline
from service.settings import Settings
from service.stream import hub as hub_module
from service.stream import look as look_module
from service.stream.announce import Announcer
from service.stream.hub import Client, Hub
from service.stream.look import Wanted, Wish
from tests.support.servers import Postgres
from tests.support.serving import PATIENCE_S
from tests.support.strategies import decoded, meter, vehicle

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

EVERYTHING: Wish = {"vehicle": Wanted(None), "meter": Wanted(None)}
STREAMS = (
    "select pid from pg_stat_activity "
    "where application_name = 'fleetwatt stream' and datname = current_database()"
)


def meters(*ids: str) -> Wish:
    """Wish for some meters."""
    return {"vehicle": Wanted(), "meter": Wanted(frozenset(ids))}


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.02)


async def begun(hub: Hub, client: Client) -> None:
    """Wait until a client's position is fixed."""
    await until(lambda: hub.begin(client))


async def told(hub: Hub, client: Client) -> bytes:
    """Wait until there is news for a client, and give it."""
    assert client.seen is not None
    seen = client.seen
    await until(lambda: client.news(hub.board, seen).said)
    news = client.news(hub.board, seen)
    client.seen = news.version
    assert news.said is not None
    return news.said.plain


async def test_a_commit_wakes_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hears of commits: here it would never look by itself."""
    monkeypatch.setattr(hub_module, "_UNHINTED_S", 1e6)
    monkeypatch.setattr(hub_module, "_FRESH_S", 1e6)
    async with (
        Announcer(settings) as announcer,
        Pipeline(settings, "test", None, announcer.note) as pipeline,
        Hub(settings) as hub,
    ):
        with hub.listening(EVERYTHING) as client:
            await begun(hub, client)
            for minute in range(3):
                await pipeline.submit(decoded(meter("m-1", minute)), "test")
                assert b'"m-1"' in await told(hub, client)


async def test_it_looks_without_being_told(settings: Settings, pipeline: Pipeline) -> None:
    """What nobody announces is found all the same."""
    async with Hub(settings) as hub:
        with hub.listening(EVERYTHING) as client:
            await begun(hub, client)
            await pipeline.submit(decoded(vehicle("v-1")), "test")
            assert b'"v-1"' in await told(hub, client)


async def test_it_holds_what_is_wanted_and_new(settings: Settings, pipeline: Pipeline) -> None:
    """Given ids alone while nobody wants all; and to who comes later what is there already is no news."""
    devices = [f"m-{number}" for number in range(5)]
    await pipeline.submit(decoded(*map(meter, devices)), "test")
    async with Hub(settings) as hub:
        with hub.listening(meters("m-1", "m-none")) as one:
            await begun(hub, one)
            assert hub.board.devices == 0
            with hub.listening(meters("m-2")) as other:
                assert not hub.begin(other)
                await begun(hub, other)
                await pipeline.submit(decoded(meter("m-1", 1), meter("m-3", 1)), "test")
                assert b'"m-1"' in await told(hub, one)
                assert hub.board.devices == 1
                assert other.seen is not None
                assert other.news(hub.board, other.seen).said is None
            with hub.listening(EVERYTHING) as everything:
                await begun(hub, everything)
                await pipeline.submit(decoded(meter("m-4", 1)), "test")
                assert b'"m-4"' in await told(hub, everything)
                assert one.seen is not None
                assert one.news(hub.board, one.seen).said is None


async def test_for_nobody_it_holds_nothing(
    settings: Settings, pipeline: Pipeline, owner: psycopg.AsyncConnection[Any]
) -> None:
    """Neither states nor a connection, before the first client and after the last."""
    async with Hub(settings) as hub:
        assert not await (await owner.execute(STREAMS)).fetchall()
        for minute in range(2):
            with hub.listening(EVERYTHING) as client:
                await begun(hub, client)
                assert len(await (await owner.execute(STREAMS)).fetchall()) == 1
                await pipeline.submit(decoded(meter("m-1", minute)), "test")
                assert b'"m-1"' in await told(hub, client)
            await until(lambda: hub.board.devices == 0)
            async with asyncio.timeout(PATIENCE_S):
                while await (await owner.execute(STREAMS)).fetchall():
                    await asyncio.sleep(0.02)


async def test_another_server(settings: Settings, pipeline: Pipeline) -> None:
    """Where a database was restored elsewhere transactions have other numbers: all is told once more."""
    await pipeline.submit(decoded(meter("m-1"), vehicle("v-1")), "test")
    async with Hub(settings) as hub:
        with hub.listening(EVERYTHING) as client:
            await begun(hub, client)
            hub.board.position = 2**40
            assert b'"m-1"' in (found := await told(hub, client)) or b'"v-1"' in found
            assert hub.board.position < 2**40


async def test_a_frozen_server_is_given_up(
    settings: Settings,
    pipeline: Pipeline,
    postgres: Postgres,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look that gets no answer ends, another connection tells what was missed, and the end is no hang."""
    monkeypatch.setattr(look_module, "_PATIENCE_S", 1.0)
    stopped: list[int] = []
    with postgres.admin(database) as admin:
        try:
            async with Hub(settings) as hub:
                with hub.listening(EVERYTHING) as client:
                    await begun(hub, client)
                    for minute in range(2):
                        found = {int(str(pid)) for (pid,) in admin.execute(STREAMS).fetchall()}
                        [pid] = found - set(stopped)
                        os.kill(pid, signal.SIGSTOP)
                        stopped.append(pid)
                        await pipeline.submit(decoded(meter("m-1", minute)), "test")
                        if not minute:
                            assert b'"m-1"' in await told(hub, client)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

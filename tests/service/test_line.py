"""A line of its own to the database: who leaves in the middle, and what comes after the end."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from service.errors import DatabaseUnavailableError
from service.line import Line
from service.settings import Settings

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

WHO: Final = "select pg_backend_pid() as pid"


async def test_who_leaves_holds_up_nobody(settings: Settings) -> None:
    """A question that is given up by its asker takes its connection along; the next one has another."""
    line = Line(settings.database_url, "test", 10)
    before = await line.ask(WHO)
    leaving = asyncio.create_task(line.ask("select pg_sleep(50)"))
    await asyncio.sleep(0.1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await line.ask(WHO) != before
    await line.close()


async def test_nothing_is_asked_after_the_end(settings: Settings) -> None:
    """A closed line opens no connection again, which nobody would close."""
    line = Line(settings.database_url, "test", 10)
    await line.ask(WHO)
    asking = asyncio.create_task(line.ask("select pg_sleep(50)"))
    await asyncio.sleep(0.1)
    await line.close()
    for asked in (asking, line.ask(WHO)):
        with pytest.raises(DatabaseUnavailableError):
            await asked

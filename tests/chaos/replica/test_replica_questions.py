"""How analytics ask: one moment, nothing written, and which failures of a replica the primary makes good."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import msgspec
import psycopg
import pytest
from psycopg_pool import PoolTimeout

from service import db
from service.questions import Question, Questions
from service.settings import Settings
from tests.support import servers
from tests.support.replica import Pair, asked
from tests.support.serving import PATIENCE_S
from tests.support.strategies import Owner

pytestmark = pytest.mark.anyio

SLOW_THERE: Final = Question(
    "select pg_is_in_recovery() as there, "
    "pg_sleep(case when pg_is_in_recovery() then 50 else 0 end) from (select count(*) from meter_state) as s"
)


@asynccontextmanager
async def asking(settings: Settings) -> AsyncIterator[Questions]:
    """Give what analytics ask with, once it may ask the replica."""
    async with Questions(settings) as questions:
        async with asyncio.timeout(PATIENCE_S):
            while questions.replica_state != "ok":
                await asyncio.sleep(0.05)
        yield questions


async def test_a_conflict_with_recovery(settings: Settings, owner: Owner, pair: Pair) -> None:
    """A question that the replica ends, to go on with what the primary did, is answered by the primary."""
    async with asking(settings) as questions:
        before = asked("conflict")
        question = asyncio.create_task(questions.ask(Question("select 1 as one"), SLOW_THERE))
        with impatient(pair) as replica:
            await until_active(replica, question)
            # What the replica cannot replay while somebody reads the table.
            async with owner.transaction():
                await owner.execute("lock table meter_state in access exclusive mode")
            async with asyncio.timeout(PATIENCE_S):
                [[one], [row]] = await question
        assert (one["one"], row["there"]) == (1, False)
        assert asked("conflict") == before + 1


@contextmanager
def impatient(pair: Pair) -> Iterator[psycopg.Connection[Any]]:
    """Have the replica end at once what is in the way of its recovery; give a connection to it."""
    with pair.at_replica() as replica:
        replica.execute("alter system set max_standby_streaming_delay = 0")
        replica.execute("select pg_reload_conf()")
        try:
            yield replica
        finally:
            replica.execute("alter system reset max_standby_streaming_delay")
            replica.execute("select pg_reload_conf()")


async def until_active(replica: psycopg.Connection[Any], question: asyncio.Task[Any]) -> None:
    """Wait until a question is under way."""
    async with asyncio.timeout(PATIENCE_S):
        while not replica.execute(
            "select 1 from pg_stat_activity "
            "where application_name = 'fleetwatt replica' and state = 'active' and query like '%pg_sleep%'"
        ).fetchone():
            assert not question.done(), question
            await asyncio.sleep(0.02)


@pytest.mark.either_edition
async def test_a_question_that_takes_too_long(settings: Settings) -> None:
    """It is not asked again of the primary, which it would only keep busy as well."""
    async with asking(msgspec.structs.replace(settings, statement_timeout_s=0.3)) as questions:
        before = asked("failed")
        with pytest.raises(psycopg.errors.QueryCanceled):
            await questions.ask(SLOW_THERE)
        assert asked("failed") == before


@pytest.mark.either_edition
async def test_a_replica_that_is_busy(settings: Settings) -> None:
    """Questions that find all connections to the replica in use wait and fail: the primary is spared them."""
    async with asking(msgspec.structs.replace(settings, read_pool_max=1)) as questions:
        before = asked("failed")
        slow = asyncio.create_task(questions.ask(SLOW_THERE))
        await asyncio.sleep(0.5)
        with pytest.raises(PoolTimeout):
            await questions.ask(Question("select 1 as one"))
        assert asked("failed") == before
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow


@pytest.mark.either_edition
async def test_a_replica_that_gives_no_connection(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is well but takes no more clients is no reason to answer nothing."""
    make = db.question_pool

    def out_of_reach(settings: Settings, url: str, name: str = "read", *, check: bool = True) -> db.ReadPool:
        if name == "replica":
            url = psycopg.conninfo.make_conninfo(url, port=servers.free_port())
        return make(settings, url, name, check=check)

    monkeypatch.setattr(db, "question_pool", out_of_reach)
    async with asking(settings) as questions:
        before = asked("failed")
        assert await questions.ask(Question("select 1 as one")) == [[{"one": 1}]]
        assert asked("failed") == before + 1


@pytest.mark.either_edition
async def test_one_moment(settings: Settings, owner: Owner, pair: Pair) -> None:
    """All questions of one call see one moment, at either server, whatever is committed between them."""
    async with asking(settings) as questions:
        pair.caught_up()
        await owner.execute("create table public.tick (n integer); grant select on tick to fleetwatt_service")
        pair.caught_up()
        stop = threading.Event()

        def go_on() -> None:
            with psycopg.connect(
                psycopg.conninfo.make_conninfo(settings.database_url, user="postgres"), autocommit=True
            ) as connection:
                while not stop.is_set():
                    connection.execute("insert into tick select 1")

        running = asyncio.create_task(asyncio.to_thread(go_on))
        try:
            count = Question("select count(*) as n from tick")
            pause = Question("select pg_sleep(0.1)")
            for source in (questions, questions.primary):
                [[first], _, [last]] = await source.ask(count, pause, count)
                assert first == last
                [[later]] = await source.ask(count)
                assert later["n"] > last["n"]
        finally:
            stop.set()
            await running


@pytest.mark.either_edition
async def test_nothing_is_written_where_one_asks(settings: Settings) -> None:
    """What analytics ask can be asked of a replica: the primary refuses it to write or to lock rows, too."""
    async with asking(settings) as questions:
        for statement in (
            "select from meter_state for share",
            "insert into dead_letter (origin, code, message, raw, raw_size) values ('', '', '', '', 0)",
        ):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                await questions.primary.ask(Question(statement))

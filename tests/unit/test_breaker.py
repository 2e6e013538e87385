"""The circuit breaker: when it opens, who may try, and that it always closes again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from service.errors import AtomicRefusedError
from service.ingest.breaker import Breaker, State
from tests.support.strategies import pure

pytestmark = pytest.mark.anyio

AWAY = psycopg.OperationalError("gone")
REFUSED = errors.CheckViolation("bad")


def breaker(failures: int = 3, stall_s: float = 60.0, pause_max_s: float = 0.001) -> Breaker:
    """Make a breaker that hardly pauses."""
    return Breaker(failures=failures, stall_s=stall_s, pause_max_s=pause_max_s)


def state(each: Breaker) -> State:
    """Look at it anew; a type checker believes that what was seen once stays."""
    return each.state


async def attempt(each: Breaker, error: Exception | None = None) -> None:
    """Make one try that ends with an error, or well."""
    ends = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with ends:
        async with each.attempt():
            await answer(error)


async def answer(error: Exception | None) -> None:
    """Answer as a database would."""
    if error is not None:
        raise error


async def test_it_opens_after_failures_in_a_row() -> None:
    """One failure is no outage; three in a row are; the first answer closes it."""
    each = breaker()
    for expected in (State.CLOSED, State.CLOSED, State.OPEN, State.OPEN):
        await attempt(each, AWAY)
        assert state(each) is expected
    await attempt(each)
    assert state(each) is State.CLOSED
    await attempt(each, AWAY)
    assert state(each) is State.CLOSED


@pytest.mark.parametrize("error", [REFUSED, AtomicRefusedError([]), errors.InternalError_("defect")])
async def test_a_refusal_is_an_answer(error: Exception) -> None:
    """A database that refuses data is there."""
    each = breaker(failures=1)
    await attempt(each, AWAY)
    assert state(each) is State.OPEN
    await attempt(each, error)
    assert state(each) is State.CLOSED


async def test_one_at_a_time_while_open() -> None:
    """Of many that wait, one tries; when it succeeds all others go at once, without a pause."""
    each = breaker(failures=1)
    await attempt(each, AWAY)
    inside = 0
    most = 0
    gate = asyncio.Event()

    async def wait_inside() -> None:
        nonlocal inside, most
        async with each.attempt():
            inside += 1
            most = max(most, inside)
            await gate.wait()
            inside -= 1

    tasks = [asyncio.create_task(wait_inside()) for _ in range(5)]
    async with asyncio.timeout(10):
        while not inside:
            await asyncio.sleep(0.001)
        assert (inside, state(each)) == (1, State.HALF_OPEN)
        gate.set()
        await asyncio.gather(*tasks)
    assert (most, state(each)) == (1, State.CLOSED)


async def test_a_try_that_hangs_opens_it() -> None:
    """A frozen server sends no error: how long a transaction lasts tells, and its end closes it."""
    each = breaker(stall_s=0.01)
    async with each.attempt(), asyncio.timeout(10):
        assert state(each) is State.CLOSED
        while state(each) is State.CLOSED:
            await asyncio.sleep(0.002)
        assert state(each) is State.OPEN
    assert state(each) is State.CLOSED


async def test_a_cancelled_try_says_nothing() -> None:
    """Whoever stops a try learns nothing of the database, and leaves no try behind."""
    each = breaker(failures=1, stall_s=0.01)

    async def hang() -> None:
        async with each.attempt():
            await asyncio.sleep(60)

    task = asyncio.create_task(hang())
    await asyncio.sleep(0.05)
    assert state(each) is State.OPEN
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert state(each) is State.CLOSED


@pure
@given(st.lists(st.sampled_from(["away", "refused", "well"]), max_size=30), st.integers(1, 5))
def test_it_is_open_exactly_after_enough_failures(ends: list[str], failures: int) -> None:
    """In any history, it is open exactly when the last tries, as many as set, all failed."""
    how: dict[str, Any] = {"away": AWAY, "refused": REFUSED, "well": None}

    async def live() -> None:
        each = breaker(failures=failures, pause_max_s=0.0)
        for number, end in enumerate(ends, 1):
            await attempt(each, how[end])
            last = ends[max(0, number - failures) : number]
            expected = len(last) == failures and set(last) == {"away"}
            assert (state(each) is State.OPEN) == expected

    asyncio.run(live())

"""Answers that are shared: worked out once for all who ask, kept for a while, at most so many."""

from __future__ import annotations

import asyncio

import pytest

from service.analytics import shared
from service.analytics.shared import Shared

pytestmark = pytest.mark.anyio


class Work:
    """Something slow: it goes on when it is let, and counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        """Give its number."""
        self.begun += 1
        number = self.begun
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return number


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give a clock whose only element is the time."""
    time = [1000.0]
    monkeypatch.setattr(shared, "monotonic", lambda: time[0])
    return time


async def asking(
    answers: Shared[int], work: Work, count: int, key: str = "", *, anew: bool = False
) -> list[asyncio.Task[int]]:
    """Have so many ask, and wait until all of them do."""
    tasks = [asyncio.ensure_future(answers.get(key, work, anew=anew)) for _ in range(count)]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_all_who_ask_at_once_share_one(clock: list[float]) -> None:
    """A hundred who ask while it is worked out, and those who come soon after, get the same."""
    answers: Shared[int] = Shared(4, 5.0)
    work = Work()
    tasks = await asking(answers, work, 100)
    work.may_end.set()
    assert await asyncio.gather(*tasks) == [1] * 100
    clock[0] += 4.9
    assert await answers.get("", work) == 1
    clock[0] += 0.2
    assert await answers.get("", work) == 2
    assert work.begun == 2


async def test_what_took_long_is_kept_longer(clock: list[float]) -> None:
    """Twenty times as long as it took, and never more than a minute."""
    for took, kept in ((0.1, 5.0), (1.0, 20.0), (30.0, 60.0)):
        answers: Shared[int] = Shared(4, 5.0)
        work = Work()
        [task] = await asking(answers, work, 1)
        clock[0] += took
        work.may_end.set()
        assert await task == 1
        clock[0] += kept - 0.01
        assert await answers.get("", work) == 1
        clock[0] += 0.02
        assert await answers.get("", work) == 2


async def test_anew(clock: list[float]) -> None:
    """Whoever wants it anew gets one that was begun after asking, and so do those who ask next."""
    answers: Shared[int] = Shared(4, 5.0)
    work = Work()
    tasks = await asking(answers, work, 1)
    tasks += await asking(answers, work, 1, anew=True)
    tasks += await asking(answers, work, 1)
    work.may_end.set()
    assert await asyncio.gather(*tasks) == [1, 2, 2]
    clock[0] += 1
    assert await answers.get("", work) == 2


@pytest.mark.usefixtures("clock")
async def test_an_error_is_everybodys_and_not_kept() -> None:
    """All who wait get the error; who asks then has it tried again."""
    answers: Shared[int] = Shared(4, 5.0)
    work = Work()
    work.error = OSError("away")
    tasks = await asking(answers, work, 3)
    work.may_end.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results == [work.error] * 3
    work.error = None
    assert await answers.get("", work) == 2


@pytest.mark.usefixtures("clock")
async def test_one_who_gives_up_leaves_it_to_the_others() -> None:
    """The request that had it worked out may end early."""
    answers: Shared[int] = Shared(4, 5.0)
    work = Work()
    first, second = await asking(answers, work, 2)
    first.cancel()
    work.may_end.set()
    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first


@pytest.mark.usefixtures("clock")
async def test_only_so_many_are_kept() -> None:
    """The one that was asked for longest ago makes room."""
    answers: Shared[int] = Shared(2, 5.0)
    work = Work()
    work.may_end.set()
    assert [await answers.get(key, work) for key in "abacab"] == [1, 2, 1, 3, 1, 4]

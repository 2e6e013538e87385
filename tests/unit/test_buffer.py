"""The buffer: its bounds, who waits for what, and that nothing is lost or doubled in any order of events."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BufferFullError
from service.ingest.buffer import Buffer, Submission
from service.ingest.outcome import Decoded, Outcome, Rejection
from tests.support.strategies import meter, pure

pytestmark = pytest.mark.anyio


def submission(readings: int = 1, size: int = 1, *, refused: int = 0, origin: str = "test") -> Submission:
    """Make a payload of some readings, some refusals and some bytes."""
    decoded = Decoded(
        body=bytes(size),
        readings=[meter(minute=minute) for minute in range(readings)],
        indices=list(range(readings)),
        rejections=[Rejection(index=index, code="missing", message="") for index in range(refused)],
    )
    return Submission(decoded, origin)


def buffer(*, max_readings: int = 10, max_bytes: int = 1000, batch_max: int = 5) -> Buffer:
    """Make a small buffer."""
    return Buffer(max_readings=max_readings, max_bytes=max_bytes, batch_max=batch_max)


async def settle() -> None:
    """Let every task run until it waits for something that will not happen by itself."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(*work: Coroutine[Any, Any, Any]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Run tasks up to where they wait; cancel at the end what still does."""
    tasks = [asyncio.create_task(each) for each in work]
    await settle()
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_bounded_in_readings() -> None:
    """Once the readings inside reach the bound, nothing more enters until a batch is released."""
    small = buffer(max_readings=3)
    await small.put(submission(2))
    await small.put(submission(2))
    assert (small.readings, small.has_room()) == (4, False)
    with pytest.raises(BufferFullError):
        await small.put(submission(), wait_s=0)
    batch = await small.take()
    with pytest.raises(BufferFullError):
        await small.put(submission(), wait_s=0)
    small.release(batch)
    await small.put(submission(), wait_s=0)
    assert (small.readings, small.bytes) == (1, 1)


async def test_bounded_in_bytes() -> None:
    """Bytes of payload count as well, and one payload of any size may enter an empty buffer."""
    small = buffer(max_bytes=100)
    await small.put(submission(size=100_000), wait_s=0)
    with pytest.raises(BufferFullError):
        await small.put(submission(), wait_s=0)
    small.release(await small.take())
    assert (small.readings, small.bytes) == (0, 0)


async def test_refusals_have_a_weight() -> None:
    """A payload that holds nothing but refusals fills the buffer too: each of them is a row."""
    small = buffer(max_readings=3)
    await small.put(submission(0, refused=3))
    assert not small.has_room()
    small.release(await small.take())
    await small.put(submission(0, refused=0))
    assert small.readings == 1


async def test_put_waits_for_room() -> None:
    """A sender waits as long as it takes, and enters when a batch is released."""
    small = buffer(max_readings=1)
    await small.put(submission())
    async with running(small.put(submission(), wait_s=30), small.put(submission())) as waiting:
        assert not any(task.done() for task in waiting)
        small.release(await small.take())
        await settle()
        assert [task.done() for task in waiting] == [True, False]
        small.release(await small.take())
        await settle()
        assert all(task.done() for task in waiting)
    assert small.readings == 1


async def test_put_gives_up_in_time() -> None:
    """A sender that waited long enough is told that the buffer is full, and left nothing in it."""
    small = buffer(max_readings=1)
    await small.put(submission())
    with pytest.raises(BufferFullError, match="full"):
        await small.put(submission(), wait_s=0.01)
    assert small.readings == 1
    small.release(await small.take())
    assert small.readings == 0


async def test_close_refuses_and_drains() -> None:
    """Closing refuses who comes and who waits; what is inside is handed out, then empty lists for ever."""
    small = buffer(max_readings=2)
    inside = [submission(), submission()]
    for each in inside:
        await small.put(each)
    async with running(small.put(submission())) as [waiting]:
        small.close()
        await settle()
        assert isinstance(waiting.exception(), BufferFullError)
    with pytest.raises(BufferFullError):
        await small.put(submission())
    assert await small.take(at_least=100) == inside
    assert await small.take() == []
    assert await small.take(at_least=100) == []


async def test_close_ends_waiting_takers() -> None:
    """Takers that wait for more than will ever come get what there is, or an empty list."""
    small = buffer()
    await small.put(submission())
    async with running(small.take(at_least=5), small.take(at_least=7)) as takers:
        assert not any(taker.done() for taker in takers)
        small.close()
        assert sorted(map(len, await asyncio.gather(*takers))) == [0, 1]


async def test_take_waits_for_enough() -> None:
    """A taker that asks for five readings sleeps at four; one that asks for one takes what there is."""
    small = buffer(batch_max=10)
    async with running(small.take(at_least=5)) as [taker]:
        await small.put(submission(4))
        await settle()
        assert not taker.done()
        await small.put(submission(1))
        assert [len(each.decoded.readings) for each in await taker] == [4, 1]
    await small.put(submission())
    assert len(await small.take()) == 1


async def test_batch_is_cut_between_submissions() -> None:
    """A batch ends at the limit, never inside a submission; one above the limit goes alone."""
    small = buffer(max_readings=100, batch_max=5)
    for count in (2, 3, 1, 9, 1, 5):
        await small.put(submission(count))
    small.close()
    batches = []
    while batch := await small.take():
        batches.append([len(each.decoded.readings) for each in batch])
        small.release(batch)
    assert batches == [[2, 3], [1], [9], [1], [5]]
    assert (small.readings, small.bytes) == (0, 0)


async def test_atomic_submissions_keep_their_place() -> None:
    """All-or-nothing submissions leave in the order of arrival, like all others."""
    small = buffer(batch_max=10)
    inside = [submission(), submission(), submission(), submission()]
    inside[1].atomic = inside[2].atomic = True
    for each in inside:
        await small.put(each)
    assert await small.take() == inside


async def test_a_cancelled_sender_does_not_lose_the_wake_up() -> None:
    """A sender that is cancelled in the moment it is woken leaves the room to the next one."""
    small = buffer(max_readings=1)
    await small.put(submission())
    async with running(small.put(submission()), small.put(submission())) as [first, second]:
        batch = await small.take()
        small.release(batch)
        first.cancel()
        await settle()
        assert first.cancelled()
        assert second.done()
        assert second.exception() is None
    assert small.readings == 1


async def test_a_cancelled_taker_does_not_lose_the_wake_up() -> None:
    """A taker that is cancelled in the moment it is woken leaves the batch to the next one."""
    small = buffer()
    async with running(small.take(), small.take()) as [first, second]:
        await small.put(submission())
        first.cancel()
        await settle()
        assert first.cancelled()
        assert len(await second) == 1


async def test_a_sender_that_gave_up_is_not_told() -> None:
    """Resolving a submission whose sender no longer listens is no error."""
    for given_up in (submission(), submission()):
        given_up.committed.cancel()
        given_up.resolve(Outcome(accepted=1, duplicates=0, rejections=[]))
        given_up.fail(BufferFullError("full"))


async def _send(target: Buffer, seed: int, count: int, entered: list[str]) -> None:
    """Put submissions of random weights, giving up now and then."""
    chance = random.Random(seed)
    for number in range(count):
        origin = f"{seed}-{number}"
        wait_s = chance.choice([None, 0, 0.001])
        try:
            await target.put(
                submission(chance.randint(0, 4), chance.randint(0, 40), origin=origin), wait_s=wait_s
            )
        except BufferFullError:
            continue
        entered.append(origin)
        for _ in range(chance.randint(0, 2)):
            await asyncio.sleep(0)


async def _write(source: Buffer, seed: int, at_least: int, left: list[str]) -> None:
    """Take and release batches until the buffer is closed and empty."""
    chance = random.Random(seed)
    while batch := await source.take(at_least):
        left += [each.origin for each in batch]
        for _ in range(chance.randint(0, 3)):
            await asyncio.sleep(0)
        source.release(batch)


@pure
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 3))
async def test_nothing_is_lost_or_doubled(seed: int, senders: int, writers: int) -> None:
    """Whatever the order of events, what entered leaves once; one writer keeps each sender's order."""
    chance = random.Random(seed)
    small = buffer(max_readings=chance.randint(1, 12), max_bytes=chance.randint(1, 200), batch_max=6)
    entered: list[str] = []
    left: list[str] = []
    async with running(
        *(_send(small, seed + number, 12, entered) for number in range(senders)),
        # The first writer takes whatever there is, as in the pipeline; else a little could wait for ever.
        *(_write(small, seed - number, 1 if number == 0 else 4, left) for number in range(writers)),
    ) as tasks:
        some = tasks[:senders]
        # A sender that goes away: what it had put is written, what it was waiting with never enters.
        chance.choice(some).cancel()
        await asyncio.gather(*some, return_exceptions=True)
        small.close()
        await asyncio.gather(*tasks[senders:])
    assert sorted(left) == sorted(entered)
    assert (small.readings, small.bytes) == (0, 0)
    if writers == 1:
        for number in range(senders):
            mine = [origin for origin in left if origin.startswith(f"{seed + number}-")]
            assert mine == [origin for origin in entered if origin.startswith(f"{seed + number}-")]

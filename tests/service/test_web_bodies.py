"""Request bodies: what they may take of time and memory, alone and all together."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import httpx
import pytest

from service.ingest.decode import decode, decode_lines
from service.readings import TimeRule
from service.settings import Settings
from service.web.problems import Problem
from service.web.room import FREE_BYTES, Budget
from tests.support.strategies import Owner, as_json, meter, problem, rows, serving

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

KIB: Final = 1024
MIB: Final = 1024 * KIB
JSON: Final = {"content-type": "application/json"}
PACKED: Final = {**JSON, "content-encoding": "gzip"}
READING: Final = json.dumps(as_json(meter())).encode()


def padded(size: int) -> bytes:
    """Give a good reading with blanks around it."""
    return READING + b" " * (size - len(READING))


async def in_parts(body: bytes, go_on: asyncio.Event, part: int = 64 * KIB) -> AsyncIterator[bytes]:
    """Send all but the last part, and that when it is time."""
    for start in range(0, len(body) - part, part):
        yield body[start : min(start + part, len(body) - part)]
    await go_on.wait()
    yield body[-part:]


async def sent(client: httpx.AsyncClient, body: Any, headers: dict[str, str] = JSON) -> httpx.Response:
    """Post to the route that takes everything."""
    return await client.post("/v1/telemetry", content=body, headers=headers)


async def test_all_bodies_share_a_budget(settings: Settings) -> None:
    """While large bodies hold the memory another one gets 503, a small one is taken; then all is free."""
    async with serving(settings, http_bodies_max_bytes=MIB) as client:
        go_on = asyncio.Event()
        holding = [asyncio.create_task(sent(client, in_parts(padded(600 * KIB), go_on))) for _ in range(2)]
        await asyncio.sleep(0.2)
        refused = await sent(client, padded(600 * KIB))
        problem(refused, 503, "unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert (await sent(client, padded(FREE_BYTES // 2))).status_code == 201
        go_on.set()
        assert [(await task).status_code for task in holding] == [201, 201]
        for _ in range(5):
            assert (await sent(client, padded(900 * KIB))).status_code == 201


async def test_what_is_unpacked_and_decoded_counts(settings: Settings) -> None:
    """A packed body counts with what it unpacks to, a batch with its readings and refusals."""
    async with serving(settings, http_bodies_max_bytes=2 * MIB) as client:
        problem(await sent(client, gzip.compress(padded(3 * MIB)), PACKED), 413, "too_large")
        problem(await sent(client, b"[" + b",".join([b"{}"] * 10_000) + b"]"), 413, "too_large")
        assert (await sent(client, gzip.compress(padded(MIB)), PACKED)).status_code == 201


async def test_a_client_that_leaves_gives_its_memory_back(settings: Settings) -> None:
    """A body that is given up half way, or refused, holds nothing afterwards."""
    async with serving(settings, http_bodies_max_bytes=MIB, http_body_timeout_s=0.3) as client:
        for _ in range(5):
            never = asyncio.Event()
            problem(await sent(client, in_parts(padded(900 * KIB), never)), 408, "body_timeout")
        assert (await sent(client, padded(900 * KIB))).status_code == 201


async def test_the_budget() -> None:
    """Who asks for more than there is waits a moment for others, and is then told to come back."""
    budget = Budget(100)
    await budget.take(60)
    waiting = asyncio.create_task(budget.take(60))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    budget.give_back(60)
    await waiting
    with pytest.raises(Problem) as caught:
        await budget.take(60)
    assert (caught.value.status, budget.used) == (503, 60)


def peak_of(work: Callable[[], object]) -> int:
    """Give how many bytes were allocated at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [b"[" + b",".join([b"{}"] * 4_000_000) + b"]", b'{"readings":[' + b"1," * 6_000_000 + b"1]}"],
    ids=["array", "envelope"],
)
def test_millions_of_tiny_readings(body: bytes) -> None:
    """An array of millions of values is refused before they are taken apart."""
    found = []
    peak = peak_of(lambda: found.append(decode(body, TimeRule())))
    assert [rejection.code for rejection in found[0].rejections] == ["too_many_readings"]
    assert peak < MIB


@pytest.mark.parametrize("line", [b"\n", b"x\n", b" \n"], ids=["empty", "tiny", "blank"])
def test_millions_of_lines(line: bytes) -> None:
    """So are lines, also those that hold nothing."""
    body = line * 8_000_000
    found = []
    peak = peak_of(lambda: found.append(decode_lines(body, TimeRule())))
    assert [rejection.code for rejection in found[0].rejections] == ["too_many_readings"]
    assert peak < MIB


def test_blank_lines_between_readings() -> None:
    """A blank line after each reading, and carriage returns, are no reason to refuse anything."""
    found = decode_lines((READING + b"\r\n\r\n") * 50, TimeRule(), max_readings=50)
    assert (len(found.readings), found.rejections) == (50, [])


async def test_nested_bombs(settings: Settings, owner: Owner) -> None:
    """Gzip within gzip is not unpacked twice: it is no JSON. Deep JSON is told to be too deep."""
    async with serving(settings) as client:
        packed = gzip.compress(gzip.compress(READING))
        problem(await sent(client, packed, PACKED), 400, "malformed_json")
        deep = gzip.compress(b"[" * 30_000_000, 1)
        problem(await sent(client, deep, PACKED), 400, "too_deep")
        bomb = gzip.compress(bytes(200 * MIB), 1)
        problem(await sent(client, bomb, PACKED), 413, "too_large")
    assert await rows(owner, "select * from meter_reading") == []

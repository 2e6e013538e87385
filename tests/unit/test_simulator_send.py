"""Counting, and the HTTP sender against a small server that is not always ready."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.broker import BrokerAddress
from service.errors import FleetwattError
from service.simulator.fleet import Fleet
from service.simulator.http import HttpSender
from service.simulator.mqtt import MqttSender
from service.simulator.network import Disturbances
from service.simulator.progress import Latencies, Progress
from service.simulator.run import SimulationOptions, simulate

READINGS = Fleet(20, 20, seed=1).readings_at(datetime(2026, 3, 1, 12, tzinfo=UTC), 60)
GOOD = (200, b'{"accepted":9,"duplicates":1,"rejected":[]}')
FOREIGN = b'{"code": "all_refused", "detail": "none of the readings is good"}'
ONE_REFUSED = (200, b'{"accepted":9,"duplicates":0,"rejected":[{"index":3,"code":"x","message":"no good"}]}')


@asynccontextmanager
async def _server(*answers: tuple[int, bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve one answer a request, in order, the last one for ever; give the URL and the bodies received."""
    left, bodies = list(answers), list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        bodies.append(await reader.readexactly(int(length.partition(b":")[2])))
        status, body = left.pop(0) if len(left) > 1 else left[0]
        fields = f"Retry-After: 0\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        head = f"HTTP/1.1 {status} x\r\n{fields}".encode()
        if status:
            writer.write(head + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", bodies


async def _send(*answers: tuple[int, bytes]) -> tuple[Progress, list[bytes]]:
    progress = Progress()
    async with (
        _server(*answers) as (url, bodies),
        HttpSender(url, progress, connections=1, batch=10) as sender,
    ):
        await sender.send(READINGS[:10])
        assert await sender.drain(10)
    return progress, bodies


def test_a_batch_is_tried_until_it_is_stored() -> None:
    """A lost connection, 503 and 429 are tried again with the same body, and counted once."""
    progress, bodies = asyncio.run(_send((0, b""), (503, b""), (429, b""), GOOD))
    assert len(bodies) == 4
    assert len(set(bodies)) == 1
    assert (progress.sent, progress.acknowledged, progress.duplicates, progress.rejected) == (10, 10, 1, 0)
    assert progress.in_flight == 0
    assert progress.problem == ""


@pytest.mark.parametrize(
    ("answer", "acknowledged", "rejected"),
    [(ONE_REFUSED, 9, 1), ((400, b"{}"), 0, 10), ((403, FOREIGN), 0, 10), ((200, b"<html>"), 0, 10)],
)
def test_what_is_refused_is_counted_and_not_tried_again(
    answer: tuple[int, bytes], acknowledged: int, rejected: int
) -> None:
    """Readings refused one by one or all together count as rejected, and the reason is kept."""
    progress, bodies = asyncio.run(_send(answer))
    assert len(bodies) == 1
    assert (progress.acknowledged, progress.rejected) == (acknowledged, rejected)
    assert progress.problem


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            (401, json.dumps({"code": "bad_key", "detail": 300 * "." + " that key is none"}).encode()),
            ". that key is none; FLEETWATT_API_KEY",
        ),
        (
            (403, b'{"code": "not_allowed", "detail": "it takes the scope ingest"}'),
            "the scope ingest; FLEETWATT_",
        ),
        ((401, b"who"), "who; FLEETWATT_API_KEY"),
    ],
)
def test_a_key_that_is_not_good_ends_a_run(answer: tuple[int, bytes], words: str) -> None:
    """It would be refused to the end: the run ends with the service's words, all of them."""

    async def run() -> None:
        async with _server(answer) as (url, _):
            options = SimulationOptions(devices=3, interval_s=0.05, for_s=60, via="http", http_url=url)
            async with asyncio.timeout(30):
                await simulate(options, lambda _progress: None)

    with pytest.raises(FleetwattError, match=re.escape(words)):
        asyncio.run(run())


def test_a_run_sends_all_that_it_generated() -> None:
    """Held, late and repeated readings are all out when a run ends by itself or is cancelled."""

    async def run(for_s: float | None) -> tuple[Progress, int]:
        reports = 0

        def report(progress: Progress) -> None:
            nonlocal reports
            reports += 1
            if for_s is None and progress.generated > 60 and not task.cancelling():
                task.cancel()

        async with _server((200, b'{"accepted":1}')) as (url, _):
            options = SimulationOptions(
                devices=3,
                interval_s=0.05,
                for_s=for_s,
                via="http",
                http_url=url,
                batch=1,
                disturbances=Disturbances(drift_s=5, outages=0.3, outage_s=0.4, repeats=0.2, shuffle=0.2),
            )
            task = asyncio.create_task(simulate(options, report))
            return await task, reports

    by_itself_s = 1.2
    # A busy machine takes longer to generate as much.
    while (ended := asyncio.run(run(by_itself_s)))[0].generated <= 60:
        by_itself_s *= 2
    for progress, reports in (ended, asyncio.run(run(None))):
        assert progress.complete
        assert progress.generated == progress.distinct
        assert progress.generated % 6 == 0
        assert progress.generated > 60
        assert 0 < progress.repeats < progress.sent
        assert reports >= 2
        assert 0 < progress.p50_ms <= progress.p95_ms <= progress.p99_ms


@given(st.lists(st.floats(0.0001, 100), min_size=1, max_size=200), st.sampled_from([50, 95, 99]))
def test_percentiles_are_close(latencies_s: list[float], percent: int) -> None:
    """A percentile is off by no more than the width of a bucket."""
    latencies = Latencies()
    for latency_s in latencies_s:
        latencies.add(latency_s)
    place = -(-len(latencies_s) * percent // 100) - 1
    exact_ms = sorted(latencies_s)[place] * 1000
    assert exact_ms / 1.06 <= latencies.percentile_ms(percent) <= exact_ms * 1.06


def test_no_latency_has_no_percentile() -> None:
    """Before the first acknowledgement the percentiles are 0."""
    assert Latencies().percentile_ms(50) == 0


def test_a_brokers_address_is_read() -> None:
    """Login and port are taken from the URL; without a port it is the usual one."""
    broker = BrokerAddress.from_url("mqtt://me:p%40ss@localhost:2000")
    assert (broker.host, broker.port, broker.user, broker.password, broker.tls) == (
        "localhost",
        2000,
        "me",
        "p@ss",
        False,
    )
    assert BrokerAddress.from_url("mqtts://host").port == 8883


@pytest.mark.parametrize("url", ["", "localhost:1883", "http://localhost"])
def test_what_is_no_brokers_address_is_refused(url: str) -> None:
    """An address without scheme or host is an error that says so."""
    with pytest.raises(FleetwattError, match=r"broker's address"):
        BrokerAddress.from_url(url)


def test_a_broker_that_is_not_there_is_an_error_at_once() -> None:
    """The first connection is not retried: most often the address is wrong."""

    async def connect() -> None:
        async with _server(GOOD) as (url, _):
            port = url.rpartition(":")[2]
        async with MqttSender(BrokerAddress.from_url(f"mqtt://127.0.0.1:{port}"), Progress(), connections=1):
            pass

    with pytest.raises(FleetwattError, match="no connection to the broker"):
        asyncio.run(connect())

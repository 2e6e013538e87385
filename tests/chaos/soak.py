"""`python -m tests.chaos.soak`: twice the sustainable rate, for minutes; memory must stay flat.

The line to the database is thin, so that the database is what cannot keep up, and not the load beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, Final

import click
import httpx
import msgspec
from rich.console import Console

from service import log
from tests.chaos.engine import Engine, descendants
from tests.chaos.publisher import open_session, publish_packet

_HTTP_BATCH: Final = 1000
_MQTT_BATCH: Final = 20
_MQTT_WINDOW: Final = 500
_PUBLISHERS: Final = 4
_WARM_UP_S: Final = 10.0
# Enough to keep the database busy, and no more: the proxy before it runs in the loop of the load.
_MEASURE_CLIENTS: Final = 30
_MEASURE_MQTT_PER_S: Final = 15_000.0
_GROWTH: Final = 1.10
_SLACK_MB: Final = 20.0


class Tally(msgspec.Struct):
    """What the load has done so far."""

    http_stored: int = 0
    http_offered: int = 0
    refused: int = 0
    failed: int = 0
    mqtt_taken: int = 0


class Pace:
    """Gives permission to send so many readings a second, all senders together; None: no bound.

    A sender that is late does not catch up: a burst would be another test.
    """

    def __init__(self, per_s: float | None) -> None:
        self._per_s = per_s
        self._next = monotonic()

    async def take(self, readings: int) -> None:
        """Wait for the turn of so many readings."""
        if self._per_s is None:
            return
        now = monotonic()
        self._next = max(self._next, now - 0.5)
        wait_s = self._next - now
        self._next += readings / self._per_s
        if wait_s > 0:
            await asyncio.sleep(wait_s)


def _readings(device: str, many: int, numbers: count[int]) -> bytes:
    """Make an array of so many readings of a meter, all different; by hand, since the load must be quick."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:")
    # Seconds and microseconds from a running number: unique for a device within a minute.
    return b"[%s]" % b",".join(
        b'{"meterId":"%s","kwhConsumedAc":0.5,"voltage":230.1,"timestamp":"%s%02d.%06dZ"}'
        % (device.encode(), now.encode(), (n := next(numbers)) // 1_000_000 % 60, n % 1_000_000)
        for _ in range(many)
    )


async def _post(client: httpx.AsyncClient, name: str, pace: Pace, tally: Tally) -> None:
    """Post batch after batch; a batch that is refused waits as told and is given up for the next one."""
    numbers = count()
    while True:
        await pace.take(_HTTP_BATCH)
        tally.http_offered += _HTTP_BATCH
        body = _readings(name, _HTTP_BATCH, numbers)
        try:
            response = await client.post(
                "/v1/telemetry", content=body, headers={"content-type": "application/json"}
            )
        except httpx.TransportError:
            tally.failed += 1
            await asyncio.sleep(0.5)
            continue
        if response.is_success:
            tally.http_stored += response.json()["accepted"]
        elif response.status_code in {429, 503}:
            tally.refused += 1
            # Half of what is asked for: the load is to press, not to behave.
            await asyncio.sleep(float(response.headers["retry-after"]) / 2)
        else:
            tally.failed += 1


async def _publish(port: int, name: str, pace: Pace, tally: Tally) -> None:
    """Publish arrays at QoS 1 with a wide window, as fast as the pace and the broker allow."""
    reader, writer = await open_session(port, name)
    room = asyncio.Semaphore(_MQTT_WINDOW)

    async def hear() -> None:
        while True:
            head = await reader.readexactly(2)
            await reader.readexactly(head[1])
            tally.mqtt_taken += _MQTT_BATCH
            room.release()

    async def say() -> None:
        numbers, topic = count(), f"telemetry/meter/{name}"
        for number in count():
            await pace.take(_MQTT_BATCH)
            await room.acquire()
            payload = _readings(name, _MQTT_BATCH, numbers)
            writer.write(publish_packet(topic, number % 65_535 + 1, payload))
            await writer.drain()

    try:
        await asyncio.gather(hear(), say())
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def _pressing(
    engine: Engine, clients: int, http_per_s: float | None, mqtt_per_s: float | None, tag: str
) -> AsyncIterator[Tally]:
    """Run the load of both ways; give what it counts."""
    tally, http_pace, mqtt_pace = Tally(), Pace(http_per_s), Pace(mqtt_per_s)
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(
        base_url=engine.urls[0], timeout=30.0, trust_env=False, limits=limits
    ) as client:
        jobs: list[Coroutine[Any, Any, None]] = [
            _post(client, f"soak-{tag}-h{number}", http_pace, tally) for number in range(clients)
        ]
        jobs += [
            _publish(engine.mqtt_port, f"soak-{tag}-q{number}", mqtt_pace, tally)
            for number in range(_PUBLISHERS)
        ]
        tasks = [asyncio.create_task(job) for job in jobs]
        try:
            yield tally
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result


async def _stored(engine: Engine, way: str) -> int:
    async with engine.admin() as connection:
        cursor = await connection.execute(
            "select coalesce(sum(accepted), 0)::bigint from public.ingest_minute where writer like %s",
            [f"{way}/%"],
        )
        row = await cursor.fetchone()
        return int(row[0]) if row else 0


def resident_mb(pid: int) -> float:
    """Give the resident memory of a process and its descendants, MB."""
    pages = 0
    for one in [pid, *descendants(pid)]:
        with contextlib.suppress(OSError):
            match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{one}/status").read_text())
            pages += int(match[1]) if match else 0
    return pages / 1024


def is_flat(samples: list[float]) -> bool:
    """Tell whether the last third's peak is no higher than the second's, but for some slack."""
    third = len(samples) // 3
    return max(samples[2 * third :]) < max(samples[third : 2 * third]) * _GROWTH + _SLACK_MB


async def _soak(minutes: float, measure_s: float, clients: int, line_kb: float, console: Console) -> bool:
    samples: dict[str, list[float]] = {"serve-0": [], "worker-0": []}
    async with Engine(services=1, workers=1, proxied=line_kb > 0) as engine:
        engine.database_proxy.bytes_per_s = line_kb * 1000 or None
        pids = {name: engine.pid(name) for name in samples}
        async with _pressing(engine, _MEASURE_CLIENTS, None, _MEASURE_MQTT_PER_S, "a"):
            await asyncio.sleep(_WARM_UP_S)
            before = [await _stored(engine, way) for way in ("http", "mqtt")]
            await asyncio.sleep(measure_s)
            after = [await _stored(engine, way) for way in ("http", "mqtt")]
        http, mqtt = (max(b - a, 1) / measure_s for a, b in zip(before, after, strict=True))
        console.print(
            f"sustainable: {http + mqtt:,.0f} readings/s (HTTP {http:,.0f}, MQTT {mqtt:,.0f}), load included"
        )
        async with _pressing(engine, clients, 2 * http, 2 * mqtt, "b") as tally:
            before = [await _stored(engine, way) for way in ("http", "mqtt")]
            began = monotonic()
            while monotonic() - began < minutes * 60:
                await asyncio.sleep(1)
                for name, pid in pids.items():
                    samples[name].append(resident_mb(pid))
            after = [await _stored(engine, way) for way in ("http", "mqtt")]
        lived = all(engine.pid(name) == pid for name, pid in pids.items())
        broker = resident_mb(engine.pid("mosquitto"))
    stored_http, stored_mqtt = (b - a for a, b in zip(before, after, strict=True))
    seconds = minutes * 60
    console.print(
        f"offered for {seconds:.0f} s: HTTP {tally.http_offered / seconds:,.0f}/s, "
        f"stored {stored_http / seconds:,.0f}/s; MQTT {tally.mqtt_taken / seconds:,.0f}/s, "
        f"stored {stored_mqtt / seconds:,.0f}/s"
    )
    console.print(
        f"requests refused with 503 or 429: {tally.refused}, failed: {tally.failed}; "
        f"highest peaks: {', '.join(f'{name} {max(values):.0f} MB' for name, values in samples.items())}"
    )
    flat = True
    for name, values in samples.items():
        third = len(values) // 3
        peaks = [max(part) for part in (values[:third], values[third : 2 * third], values[2 * third :])]
        flat = flat and is_flat(values)
        console.print(
            f"{name}: resident at the start {values[0]:.0f} MB, peak of each third "
            f"{' / '.join(f'{peak:.0f}' for peak in peaks)} MB: {'flat' if is_flat(values) else 'GROWS'}"
        )
    console.print(f"broker at the end: {broker:.0f} MB")
    if not lived:
        console.print("FAILED: a process died and was started again")
    if tally.failed:
        console.print("FAILED: requests got another answer than 2xx, 429 or 503")
    return flat and lived and not tally.failed


@click.command()
@click.option("--minutes", default=3.0, show_default=True, help="How long to offer twice the rate.")
@click.option("--measure", "measure_s", default=20.0, show_default=True, help="How long to find the rate, s.")
@click.option("--clients", default=300, show_default=True, help="HTTP connections, 1000 readings a request.")
@click.option(
    "--line",
    "line_kb",
    default=300.0,
    show_default=True,
    help="kB/s to the database, by connection; 0: any",
)
def main(minutes: float, measure_s: float, clients: int, line_kb: float) -> None:
    """Offer twice the sustainable rate over HTTP and MQTT; exit code 1 if memory grows or requests fail."""
    log.configure("error")
    console = Console(stderr=True, width=140, highlight=False)
    sys.exit(0 if asyncio.run(_soak(minutes, measure_s, clients, line_kb, console)) else 1)


if __name__ == "__main__":
    main()

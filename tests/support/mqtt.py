"""Publishing to a real broker, workers and consumers beside a test, and waiting for what they store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from service import paths
from service.ingest.mqtt import Consumer
from service.ingest.pipeline import Pipeline
from service.settings import PREFIX, Settings
from tests.support import servers
from tests.support.strategies import Owner, rows

# How long something may take that takes milliseconds; only a failing test waits that long.
PATIENCE_S: Final = 20
METER: Final = "telemetry/meter/"
VEHICLE: Final = "telemetry/vehicle/"


async def publish(port: int, topic: str, *payloads: bytes) -> None:
    """Publish with QoS 1; return once the broker has taken all of them. No payload holds a line end."""
    command = [str(servers.apache_root() / "usr/bin/mosquitto_pub")]
    process = await asyncio.create_subprocess_exec(
        *command, "-V", "5", "-h", "127.0.0.1", "-p", str(port), "-q", "1", "-t", topic, "-l",
        stdin=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await process.communicate(b"".join(payload + b"\n" for payload in payloads))
    assert process.returncode == 0


async def publish_raw(port: int, topic: str, payload: bytes, *options: str) -> None:
    """Publish one payload of any bytes, with QoS 1 unless the options say otherwise."""
    command = [str(servers.apache_root() / "usr/bin/mosquitto_pub")]
    process = await asyncio.create_subprocess_exec(
        *command, "-V", "5", "-h", "127.0.0.1", "-p", str(port), "-q", "1", "-t", topic,
        "-s" if payload else "-n", *options,
        stdin=asyncio.subprocess.PIPE if payload else asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    await process.communicate(payload or None)
    assert process.returncode == 0


async def eventually(owner: Owner, statement: str, expected: int) -> None:
    """Wait until a query that counts gives a number."""
    found: int | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while found != expected:
                await asyncio.sleep(0.02)
                [row] = await rows(owner, statement)
                found = row["n"]
    assert found == expected, statement


METERS: Final = "select count(*) as n from meter_reading"
VEHICLES: Final = "select count(*) as n from vehicle_reading"
LETTERS: Final = "select count(*) as n from dead_letter"
DUPLICATES: Final = "select coalesce(sum(duplicates), 0)::int as n from ingest_minute"
# Whether a writer waits for the table: more of them may, and so may a refresh of the rollups.
WAITING: Final = (
    "select least(count(*), 1) as n from pg_locks join pg_stat_activity using (pid) "
    "where not granted and relation = 'meter_reading'::regclass and application_name = 'fleetwatt write'"
)


async def until_ready(ready: socket.socket) -> None:
    """Wait until a worker has said that it takes messages."""
    async with asyncio.timeout(PATIENCE_S):
        assert await asyncio.get_running_loop().sock_recv(ready, 100) == b"READY=1"


@asynccontextmanager
async def consuming(settings: Settings, ready: socket.socket) -> AsyncIterator[None]:
    """Run a consumer that has subscribed; at the end it drains and leaves its session to the broker."""
    stop = asyncio.Event()
    async with Pipeline(settings, "test") as pipeline:
        consumer = asyncio.create_task(Consumer(settings, pipeline).run(stop))
        await until_ready(ready)
        try:
            yield
        finally:
            stop.set()
            await consumer


@asynccontextmanager
async def worker_process(
    settings: Settings, ready: socket.socket
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `fleetwatt worker` as a process of its own, which a test may kill."""
    changed = {
        PREFIX + field.name.upper(): str(getattr(settings, field.name))
        for field in msgspec.structs.fields(Settings)
        if getattr(settings, field.name) != field.default
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "worker",
        cwd=Path(paths.__file__).parents[1],
        env=os.environ | changed,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until_ready(ready)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextlib.contextmanager
def broker(folder: Path, port: int, lines: str) -> Iterator[None]:
    """Run a broker with a configuration of the test's own."""
    configuration = folder / "mosquitto.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\n{lines}")
    configuration.chmod(0o644)
    command = [str(servers.apache_root() / "usr/sbin/mosquitto"), "-c", str(configuration)]
    with servers.process(command, folder / "mosquitto.log", signal.SIGTERM):
        yield


async def listening(port: int) -> None:
    """Wait until something listens on a port."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)

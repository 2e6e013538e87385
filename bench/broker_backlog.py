"""What the broker of deploy/mosquitto keeps while no worker runs, and what that costs.

`just bench-broker-backlog` lets a worker subscribe once and stops it, publishes readings over TLS as devices
do, restarts the broker in the middle, then starts a worker over TLS and counts what it stores. It ends with
status 1 if a reading is missing or came twice into the table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
from rich.console import Console
from rich.table import Table

from tests.support import servers
from tests.support.deployed_broker import PASSWORD, USERS, DeployedBroker, deployed_broker
from tests.support.mqtt import until_ready
from tests.support.mqtt_raw import PINGRESP, PUBACK, RawClient, packet, read_packet, text

_DEVICES: Final = 40
_WINDOW: Final = 500
_PROBE_S: Final = 0.02
_DURABLE: Final = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
_COUNT: Final = "select count(*)::int, count(distinct (meter_id, recorded_at))::int from meter_reading"
# Cheap: it is asked all the while.
_PROGRESS: Final = "select coalesce(sum(accepted), 0)::int from ingest_minute"
_DUPLICATES: Final = "select coalesce(sum(duplicates), 0)::int from ingest_minute"


async def publish(broker: DeployedBroker, device: int, first: int, count: int) -> None:
    """Publish readings of one device with QoS 1, a second apart; return once all are acknowledged."""
    name = f"B-{device:02}"
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    reader, writer = await asyncio.open_connection("localhost", broker.devices, ssl=broker.context())
    login = text(f"meter/{name}") + text(PASSWORD)
    writer.write(packet(0x10, text("MQTT") + bytes([5, 0xC2, 0, 60, 0]) + text("any") + login))
    _, answer = await read_packet(reader)
    assert answer[1] == 0, answer
    head = text(f"telemetry/meter/{name}")
    sent = acknowledged = 0
    while acknowledged < count:
        while sent < count and sent - acknowledged < _WINDOW:
            at = (begin + timedelta(seconds=first + sent)).isoformat()
            payload = f'{{"meterId":"{name}","timestamp":"{at}","kwhConsumedAc":0.125,"voltage":231.5}}'
            number = (sent % 65_535 + 1).to_bytes(2, "big")
            writer.write(packet(0x32, head + number + b"\0" + payload.encode()))
            sent += 1
        await writer.drain()
        kind, _ = await read_packet(reader)
        acknowledged += kind == PUBACK
    writer.transport.abort()


async def publish_all(broker: DeployedBroker, first: int, each: int) -> float:
    """Publish `each` readings of every device; give the time, in seconds."""
    began = time.perf_counter()
    await asyncio.gather(*(publish(broker, device, first, each) for device in range(_DEVICES)))
    return time.perf_counter() - began


@asynccontextmanager
async def probing(broker: DeployedBroker, worst: list[float]) -> AsyncIterator[None]:
    """Ping the broker all the while; note the longest time that an answer took (s)."""

    async def probe() -> None:
        async with RawClient(broker.devices, tls=broker.context()) as client:
            await client.connect("any", ("charging", PASSWORD))
            while True:
                began = time.perf_counter()
                kind, _ = await client.ask(packet(0xC0, b""))
                assert kind == PINGRESP
                worst[0] = max(worst[0], time.perf_counter() - began)
                await asyncio.sleep(_PROBE_S)

    task = asyncio.create_task(probe())
    await asyncio.sleep(0.2)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextmanager
def worker(url: str, broker: DeployedBroker) -> Iterator[socket.socket]:
    """Run `fleetwatt worker`; give the socket at which it says that it has subscribed."""
    certificate, key = broker.services_authority.issue("worker", user="fleetwatt")
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
    ):
        ready.bind(f"{folder}/ready")
        ready.setblocking(False)
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "worker"],
            env={
                **os.environ,
                "NOTIFY_SOCKET": f"{folder}/ready",
                "FLEETWATT_DATABASE_URL": url,
                "FLEETWATT_MQTT_URL": f"mqtts://localhost:{broker.services}",
                "FLEETWATT_MQTT_CA_FILE": str(broker.authority.file),
                "FLEETWATT_MQTT_CLIENT_CERT_FILE": str(certificate),
                "FLEETWATT_MQTT_CLIENT_KEY_FILE": str(key),
                "FLEETWATT_MQTT_SHARE": "",
                "FLEETWATT_LOG_LEVEL": "warning",
            },
        )
        try:
            yield ready
        finally:
            process.terminate()
            process.wait(30)


def memory_mib(process_id: int, field: str = "VmRSS") -> float:
    """Give a process's memory (MiB)."""
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


async def save_now(broker: DeployedBroker, process_id: int) -> float:
    """Have the broker write its database; give the longest time that it answered nobody (s)."""
    worst = [0.0]
    database = broker.data / "mosquitto.db"
    before = database.stat().st_mtime_ns if database.exists() else 0
    async with probing(broker, worst):
        os.kill(process_id, signal.SIGUSR1)
        saved = False
        while not saved:
            await asyncio.sleep(0.2)
            saved = database.exists() and database.stat().st_mtime_ns != before
    return worst[0]


async def drain(
    url: str, broker: DeployedBroker, query_url: str, wanted: int, process_id: int
) -> dict[str, Any]:
    """Start a worker and wait until everything is stored; give what was stored, and the time (s)."""
    began = time.perf_counter()
    with worker(url, broker), psycopg.connect(query_url, autocommit=True) as connection:
        stored, last, moved = 0, 0, time.perf_counter()
        # Once nothing has moved for a minute, the rest is lost.
        while stored < wanted and time.perf_counter() - moved < 60:
            await asyncio.sleep(0.2)
            [(stored,)] = connection.execute(_PROGRESS).fetchall()
            if stored != last:
                last, moved = stored, time.perf_counter()
        took = time.perf_counter() - began
        await asyncio.sleep(1)
        [(stored, distinct)] = connection.execute(_COUNT).fetchall()
        [(duplicates,)] = connection.execute(_DUPLICATES).fetchall()
    return {
        "stored": stored,
        "lost": wanted - distinct,
        "stored_twice": stored - distinct,
        "delivered_twice": duplicates,
        "drain_s": round(took, 1),
        "drained_a_second": round(wanted / took),
        "broker_after_drain_mib": memory_mib(process_id),
    }


async def measure(messages: int) -> dict[str, Any]:
    """Run the whole story; give what was found."""
    each = messages // (2 * _DEVICES)
    total = each * 2 * _DEVICES
    result: dict[str, Any] = {"messages": total}
    with (
        deployed_broker() as broker,
        servers.running_postgres(servers.apache_root(), _DURABLE) as postgres,
        postgres.database() as name,
    ):
        broker.set_passwords(*USERS, *(f"meter/B-{device:02}" for device in range(_DEVICES)))
        url = postgres.url("fleetwatt_service", name)
        with broker.running():
            with worker(url, broker) as ready:
                await until_ready(ready)
            worst = [0.0]
            async with probing(broker, worst):
                publish_s = await publish_all(broker, 0, each)
            began = time.perf_counter()
        result["stop_and_save_s"] = round(time.perf_counter() - began, 2)
        began = time.perf_counter()
        with broker.running() as process:
            result["start_and_load_s"] = round(time.perf_counter() - began, 2)
            async with probing(broker, worst):
                publish_s += await publish_all(broker, each, each)
            result["published_a_second"] = round(total / publish_s)
            result["longest_wait_while_publishing_s"] = round(worst[0], 2)
            result["one_save_stops_it_for_s"] = round(await save_now(broker, process.pid), 2)
            result["broker_mib"] = memory_mib(process.pid)
            result["broker_peak_mib"] = memory_mib(process.pid, "VmHWM")
            size = (broker.data / "mosquitto.db").stat().st_size
            result["database_mib"] = round(size / 2**20, 1)
            result["memory_bytes_a_message"] = round(result["broker_mib"] * 2**20 / total)
            result["disk_bytes_a_message"] = round(size / total)
            owner = postgres.url("fleetwatt_owner", name)
            result |= await drain(url, broker, owner, total, process.pid)
    return result


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="an hour at 333 a second is 1200000")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    began = time.perf_counter()
    result = asyncio.run(measure(max(options.messages, 2 * _DEVICES)))
    result["took_s"] = round(time.perf_counter() - began)
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        table = Table(title="The broker while no worker runs")
        table.add_column("what")
        table.add_column("found", justify="right")
        for name, value in result.items():
            table.add_row(name.replace("_", " "), f"{value:,}")
        Console().print(table)
    if result["lost"] or result["stored_twice"]:
        sys.exit(1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()

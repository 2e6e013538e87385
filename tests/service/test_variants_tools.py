"""The load tools of the earlier variants are `fleetwatt seed` and `fleetwatt simulate` here: short runs."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import httpx
import pytest

from service.settings import Settings
from tests.support import servers
from tests.support.mqtt import PATIENCE_S, eventually, worker_process
from tests.support.strategies import Owner, rows

pytestmark = pytest.mark.anyio

STORED: Final = "select (select count(*) from meter_reading) + (select count(*) from vehicle_reading) as n"


@asynccontextmanager
async def command(*arguments: str, **changed: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command of ours; whatever still runs at the end is asked to stop."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", *arguments,
        env=os.environ | {f"FLEETWATT_{name}": value for name, value in changed.items()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def fleetwatt(*arguments: str, **changed: str) -> str:
    """Run a command to its end and give its last line."""
    async with command(*arguments, **changed) as process:
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode().splitlines()[-1]


def acknowledged(summary: str) -> int:
    """Check that a run lost nothing and had nothing refused; give how many readings it sent."""
    counts = {
        name: int(number) for name, number in re.findall(r"(sent|acknowledged|rejected) (\d+)", summary)
    }
    assert counts["sent"] == counts["acknowledged"], summary
    assert counts["rejected"] == 0, summary
    assert re.search(r"latency p50 [\d.]+ p95 [\d.]+ p99 [\d.]+ ms", summary), summary
    return counts["sent"]


async def test_a_and_b_seed_and_simulate_over_mqtt(
    mqtt_settings: Settings, owner: Owner, ready: socket.socket
) -> None:
    """A: D devices for S seconds; B: V vehicles and M meters with sessions: all that was sent is stored."""
    told = await fleetwatt("seed", "4", "3", DATABASE_URL=mqtt_settings.database_url)
    assert told.startswith("4 vehicles, 3 meters: ")
    [seeded] = await rows(
        owner,
        "select count(distinct vehicle_id) as vehicles, count(distinct meter_id) as meters"
        " from charging_session",
    )
    assert seeded == {"vehicles": 4, "meters": 3}
    async with worker_process(mqtt_settings, ready):
        sent = acknowledged(
            await fleetwatt(
                *("simulate", "--devices", "4", "--meters", "3", "--for", "3s", "--interval", "1s"),
                MQTT_URL=mqtt_settings.mqtt_url,
            )
        )
        assert sent >= 7
        assert sent % 7 == 0
        await eventually(owner, STORED, sent)
    vehicles = await rows(owner, "select vehicle_id from vehicle_state order by vehicle_id")
    assert [row["vehicle_id"] for row in vehicles] == [f"VH-000{number}" for number in (1, 2, 3, 4)]


@asynccontextmanager
async def service(settings: Settings) -> AsyncIterator[str]:
    """Run `fleetwatt serve` as a process and give its address once it is ready."""
    port = servers.free_port()
    address = f"http://127.0.0.1:{port}"
    async with (
        command("serve", DATABASE_URL=settings.database_url, HTTP_PORT=str(port)) as process,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                assert process.returncode is None
                try:
                    if (await client.get(f"{address}/health/ready")).is_success:
                        break
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.05)
        yield address


async def test_d_simulator_over_http(settings: Settings, owner: Owner) -> None:
    """D: NUM_DEVICES=3 INTERVAL_MS=500, one reading a request: each acknowledged one is in the database."""
    async with service(settings) as address:
        options = (
            "--devices",
            "3",
            "--interval",
            "500ms",
            "--for",
            "2s",
            "--batch",
            "1",
            "--http-url",
            address,
        )
        sent = acknowledged(await fleetwatt("simulate", "--via", "http", *options))
        assert sent >= 6
        assert sent % 6 == 0
        # An acknowledgement over HTTP is a commit: there is nothing to wait for.
        assert await rows(owner, STORED) == [{"n": sent}]
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = (await client.get(f"{address}/v1/analytics/stats")).json()
            metrics = (await client.get(f"{address}/metrics")).text
    assert answer["devices"] == {"meters": 3, "vehicles": 3}
    assert answer["ingest"]["readingsPerSecond"] > 0
    assert re.search(r"^fleetwatt_commit_seconds_count [1-9]", metrics, re.MULTILINE)

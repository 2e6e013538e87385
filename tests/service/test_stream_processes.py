"""The live stream over several processes, and with many clients at once."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from service.settings import Settings
from tests.support.events import Listener
from tests.support.http import store
from tests.support.mqtt import VEHICLE, publish, worker_process
from tests.support.scrape import scrape
from tests.support.serving import served
from tests.support.strategies import as_json, meter, vehicle

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

CLIENTS = 1000


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process have a connection for each client."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CLIENTS + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"a process may open {hard} files here: too few for {CLIENTS} clients")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_two_processes(settings: Settings, tmp_path: Path) -> None:
    """What one process stores is told by the other."""
    (tmp_path / "other").mkdir()
    async with (
        served(settings, tmp_path) as running,
        served(settings, tmp_path / "other") as other,
        Listener.open(running.port) as listener,
    ):
        await listener.hello()
        for minute in range(3):
            await store(other.client, meter("m-1", minute))
            assert "m-1" in await listener.states("m-1")


async def test_a_worker(
    mqtt_settings: Settings, tmp_path: Path, broker_port: int, ready: socket.socket
) -> None:
    """What comes over MQTT is told too."""
    async with (
        worker_process(mqtt_settings, ready),
        served(mqtt_settings, tmp_path) as running,
        Listener.open(running.port, "?vehicleId=v-1") as listener,
    ):
        await listener.hello()
        await publish(broker_port, f"{VEHICLE}v-1", msgspec.json.encode(as_json(vehicle("v-1"))))
        assert "v-1" in await listener.states("v-1")


@pytest.mark.usefixtures("many_files")
async def test_a_thousand_clients(settings: Settings, tmp_path: Path) -> None:
    """All of them are told the same, others are answered meanwhile, and all make room at the end."""
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(served(settings, tmp_path))
        listeners = [await stack.enter_async_context(Listener.open(running.port)) for _ in range(CLIENTS)]
        await asyncio.gather(*(listener.hello() for listener in listeners))
        address = f"http://localhost:{running.port}"
        assert (await scrape(address))["fleetwatt_stream_clients"] == CLIENTS
        await store(running.client, meter("m-1"), vehicle("v-1"))
        told = await asyncio.gather(*(listener.states("m-1", "v-1") for listener in listeners))
        assert all(each == told[0] for each in told)
        async with Listener.open(running.port) as refused:
            assert refused.status == 503
        assert (await running.client.get("/v1/analytics/stats")).status_code == 200

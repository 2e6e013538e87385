"""The live stream when things end: keys, the database, the service, and whoever listens."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.settings import Settings
from tests.support.events import Listener
from tests.support.http import store
from tests.support.keys import bearer, make_key, revoke_key
from tests.support.proxy import Proxy
from tests.support.scrape import scrape, scrape_until
from tests.support.servers import Postgres
from tests.support.serving import PATIENCE_S, served
from tests.support.strategies import as_json, meter

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

CLIENTS = "fleetwatt_stream_clients"


class Gate(Proxy):
    """A way to the database that can be shut."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.shut = False

    async def pass_there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what the client sends, unless the way is shut."""
        if self.shut:
            raise ConnectionRefusedError
        await super().pass_there(reader, writer)


@pytest.mark.parametrize("way", ["revoked", "expired"])
async def test_a_key_that_ends_ends_its_stream(settings: Settings, tmp_path: Path, way: str) -> None:
    """Revoked or over, it takes its streams with it; others go on."""
    make_key(settings, "admin")
    good = make_key(settings, "read")
    ending = make_key(
        settings, "read", expires_at=datetime.now(UTC) + timedelta(seconds=8) if way == "expired" else None
    )
    async with (
        served(settings, tmp_path, KEY_CACHE_S=0.5) as running,
        Listener.open(running.port, headers=f"X-API-Key: {good.text}\r\n") as goes_on,
        Listener.open(running.port, headers=f"Authorization: Bearer {ending.text}\r\n") as ends,
    ):
        await goes_on.hello()
        await ends.hello()
        if way == "revoked":
            revoke_key(settings, ending)
        await ends.ended()
        found = await scrape_with(running.client, good.text)
        assert found == 1
        await goes_on.until("beat")


async def scrape_with(client: httpx.AsyncClient, key: str) -> float:
    """Give how many streams are open, until only one is."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            text = (await client.get("/metrics", headers=bearer(key))).text
            [line] = [each for each in text.splitlines() if each.startswith(f"{CLIENTS} ")]
            if (count := float(line.split()[1])) <= 1:
                return count
            await asyncio.sleep(0.05)


async def test_whom_it_is_open_to(settings: Settings, tmp_path: Path) -> None:
    """A key of scope read is wanted; a stream that was open to all ends when there are keys."""
    async with (
        served(settings, tmp_path, KEY_CACHE_S=0.5) as running,
        Listener.open(running.port) as everybody,
    ):
        await everybody.hello()
        sender = make_key(settings, "ingest")
        await everybody.ended()
        for headers, status, code in (("", 401, "missing_key"), (sender.text, 403, "not_allowed")):
            async with Listener.open(
                running.port, headers=headers and f"X-API-Key: {headers}\r\n"
            ) as refused:
                assert refused.status == status
                assert b"application/problem+json" in refused.head
                assert (await refused.body())["code"] == code


async def test_places(settings: Settings, tmp_path: Path) -> None:
    """Past their number streams are refused, nothing else is, and who goes away makes room."""
    async with served(settings, tmp_path, STREAM_CLIENTS_MAX=2) as running:
        address = f"http://localhost:{running.port}"
        async with Listener.open(running.port) as first:
            async with Listener.open(running.port) as second:
                await first.hello()
                await second.hello()
                async with Listener.open(running.port) as third:
                    assert third.status == 503
                    assert b"\r\nretry-after: 10\r\n" in third.head.lower()
                    assert (await third.body())["code"] == "too_many_streams"
                await store(running.client, meter())
                found = await scrape(address)
                assert (found[CLIENTS], found["fleetwatt_stream_clients_max"]) == (2, 2)
                assert found["fleetwatt_streams_refused_total"] == 1
            assert (await scrape_until(address, lambda found: found[CLIENTS] == 1))[CLIENTS] == 1
            async with Listener.open(running.port) as fourth:
                await fourth.hello()


async def test_streams_leave_connections_to_others(settings: Settings, tmp_path: Path) -> None:
    """However many streams are allowed, no more than half of the connections are theirs."""
    async with served(settings, tmp_path, HTTP_CONNECTIONS_MAX=16) as running:
        assert (await scrape(f"http://localhost:{running.port}"))["fleetwatt_stream_clients_max"] == 8


async def test_the_end_of_the_service_ends_streams(settings: Settings, tmp_path: Path) -> None:
    """SIGTERM ends them in good order at once, where the server would wait for them for good."""
    async with served(settings, tmp_path) as running, Listener.open(running.port) as listener:
        await listener.hello()
        os.kill(running.pid, signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            # Cut off, it would raise.
            async for _ in listener.events():
                pass


async def test_nothing_is_missed_while_the_database_is_away(settings: Settings, tmp_path: Path) -> None:
    """The stream stays open, beats tell as of when states are known, and later all is told."""
    (tmp_path / "other").mkdir()
    port = int(str(conninfo_to_dict(settings.database_url)["port"]))
    async with (
        Gate(port) as gate,
        served(settings, tmp_path / "other") as other,
        served(
            settings,
            tmp_path,
            DATABASE_URL=make_conninfo(settings.database_url, host="127.0.0.1", port=gate.port),
        ) as running,
        Listener.open(running.port) as listener,
    ):
        await listener.hello()
        await store(other.client, meter("m-1"))
        await listener.states("m-1")
        gate.shut = True
        gate.cut()
        await store(other.client, meter("m-1", 1), meter("m-2"))
        [*_, beat] = await listener.until("beat")
        assert "database_away" in running.log
        time, as_of = (datetime.fromisoformat(beat.data[name]) for name in ("time", "asOf"))
        assert time - as_of > timedelta(seconds=5)
        gate.shut = False
        told = await listener.states("m-1", "m-2")
        assert told["m-1"]["timestamp"] == as_json(meter("m-1", 1))["timestamp"].replace("+00:00", "Z")


async def test_a_lost_connection_is_noticed(settings: Settings, tmp_path: Path, postgres: Postgres) -> None:
    """A stream goes on when its own connection to the database is ended by the server."""
    async with served(settings, tmp_path) as running, Listener.open(running.port) as listener:
        await listener.hello()
        with postgres.admin() as admin:
            admin.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                " where application_name = 'fleetwatt stream'"
            )
        await store(running.client, meter("m-1"))
        assert "m-1" in await listener.states("m-1")


async def test_a_client_that_takes_nothing_is_cut(settings: Settings, tmp_path: Path) -> None:
    """The kernel cuts it, its place is free again, and others are told everything meanwhile."""
    readings = [[meter(f"m-{number:03}", minute) for number in range(1000)] for minute in range(60)]
    async with served(settings, tmp_path, HTTP_STALLED_TIMEOUT_S=2) as running:
        address = f"http://localhost:{running.port}"
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            stalled.connect(("127.0.0.1", running.port))
            stalled.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with Listener.open(running.port) as listener:
                await listener.hello()
                assert (await scrape(address))[CLIENTS] == 2
                for part in readings:
                    await store(running.client, *part)
                    await listener.states("m-000")
                    if (await scrape(address))[CLIENTS] == 1:
                        break
                assert (await scrape(address))[CLIENTS] == 1


async def test_a_slow_client_gets_fewer_and_newer_events(settings: Settings, tmp_path: Path) -> None:
    """Who reads late is told the newest state of each device, not each state that there was."""
    async with (
        served(settings, tmp_path, HTTP_STALLED_TIMEOUT_S=60) as running,
        Listener.open(running.port, narrow=True) as slow,
        Listener.open(running.port) as quick,
    ):
        await slow.hello()
        await quick.hello()
        rounds = 14
        for minute in range(rounds):
            await store(running.client, *[meter(f"m-{number:03}", minute) for number in range(1000)])
            await quick.states("m-000")
        newest = as_json(meter("m-000", rounds - 1))["timestamp"].replace("+00:00", "Z")
        read = await slow.until(
            "states", lambda data: any(state["timestamp"] == newest for state in data["meters"])
        )
        assert 0 < len(read) < rounds

"""The readiness probe while the database is frozen, silent, gone, and well; and what is logged meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest
from psycopg import sql

from service.pulse import Pulse
from service.settings import Settings
from tests.support.servers import Postgres
from tests.support.serving import PATIENCE_S, served
from tests.support.strategies import as_json, meter, problem, serving

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

READY: Final = "/health/ready"
# It is told in 1.5 s; a busy machine may take longer, but not as long as any other wait for a database.
TOLD_S: Final = 3.0


def at_port(settings: Settings, port: int) -> str:
    """Give the database's address with another port."""
    return psycopg.conninfo.make_conninfo(settings.database_url, host="127.0.0.1", port=port)


async def not_ready(client: httpx.AsyncClient) -> dict[str, Any]:
    """Ask whether the service is ready; it must say in time that it is not."""
    began = time.monotonic()
    told = problem(await client.get(READY), 503, "unavailable")
    assert time.monotonic() - began < TOLD_S
    return told


async def test_a_server_that_never_answers(settings: Settings) -> None:
    """Connections to it hang: each probe, and many at once, is told in time, with the breaker's state."""
    # The kernel takes the connections; nobody reads from them.
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        async with serving(settings, database_url=at_port(settings, silent.getsockname()[1])) as client:
            for _ in range(3):
                assert (await not_ready(client))["breaker"] == "closed"
            for told in await asyncio.gather(*(not_ready(client) for _ in range(20))):
                assert told["breaker"] == "closed"
            refused = problem(await client.post("/v1/telemetry", json=as_json(meter())), 503, "unavailable")
            assert "key" not in refused["detail"]


async def test_a_frozen_server(settings: Settings, postgres: Postgres, database: str) -> None:
    """A backend that stands still is given up; the next probe has another one, and is well."""
    async with serving(settings) as client:
        assert (await client.get(READY)).json()["breaker"] == "closed"
        with postgres.admin() as admin:
            found = admin.execute(
                "select pid from pg_stat_activity "
                "where application_name = 'fleetwatt health' and datname = %s",
                (database,),
            ).fetchall()
        [[pid]] = found
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGSTOP)
        try:
            told = await asyncio.gather(*(not_ready(client) for _ in range(5)))
            assert {one["breaker"] for one in told} == {"closed"}
            async with asyncio.timeout(PATIENCE_S):
                while (await client.get(READY)).status_code != 200:
                    await asyncio.sleep(0.1)
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_a_restarted_server(settings: Settings, postgres: Postgres, database: str) -> None:
    """A connection that was closed in between is no reason to send traffic elsewhere."""
    pulse = Pulse(settings)
    for _ in range(3):
        await pulse.feel()
        with postgres.admin() as admin:
            admin.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
                "where application_name = 'fleetwatt health' and datname = %s",
                (database,),
            )
    await pulse.close()


async def test_slow_queries_do_not_matter(settings: Settings, postgres: Postgres, database: str) -> None:
    """While analytics keep every connection of theirs busy all else goes on: the service is ready, too."""
    async with serving(settings, read_pool_max=1, statement_timeout_s=20) as client:
        assert (await client.get(READY)).status_code == 200
        with postgres.admin(database) as admin, admin.transaction():
            admin.execute("lock table meter_state in access exclusive mode")
            slow = asyncio.create_task(client.get("/v1/ingest/meter/M-1/current"))
            await asyncio.sleep(0.3)
            assert (await client.get(READY)).status_code == 200
            assert (await client.get("/v1/sessions")).status_code == 200
        assert (await slow).status_code in {200, 404}


async def test_the_breaker_is_told(settings: Settings, postgres: Postgres, database: str) -> None:
    """A writer that has found out is told of; until one has, the breaker is closed and says so."""
    name = sql.Identifier(database)
    async with serving(settings, http_commit_timeout_s=0.2, breaker_failures=1, key_cache_s=60) as client:
        assert (await client.post("/v1/telemetry", json=as_json(meter()))).status_code in {201, 503}
        with postgres.admin() as admin:
            admin.execute(sql.SQL("alter database {} allow_connections false").format(name))
            admin.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", (database,)
            )
            assert (await not_ready(client))["breaker"] == "closed"
            problem(await client.post("/v1/telemetry", json=as_json(meter(minute=1))), 503, "unavailable")
            async with asyncio.timeout(PATIENCE_S):
                while (await not_ready(client))["breaker"] not in {"open", "half_open"}:
                    await asyncio.sleep(0.1)
            admin.execute(sql.SQL("alter database {} allow_connections true").format(name))
        async with asyncio.timeout(PATIENCE_S):
            while (await client.get(READY)).status_code != 200:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("edition", ["apache"])
async def test_every_line_is_json(
    settings: Settings, postgres: Postgres, database: str, tmp_path: Path
) -> None:
    """The log of a real `serve`: its own lines, the server's, the pool's while the database is away."""
    name = sql.Identifier(database)
    async with served(settings, tmp_path, LOG_LEVEL="debug") as running:
        assert (await running.client.get("/v1/analytics/stats")).status_code == 200
        with postgres.admin() as admin:
            admin.execute(sql.SQL("alter database {} allow_connections false").format(name))
            admin.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", (database,)
            )
            told = problem(await running.client.get(READY), 503, "unavailable")
            assert told["breaker"] in {"closed", "open", "half_open"}
            async with asyncio.timeout(PATIENCE_S):
                while "psycopg.pool" not in running.log:
                    await running.client.get("/v1/analytics/stats")
                    await asyncio.sleep(0.2)
            admin.execute(sql.SQL("alter database {} allow_connections true").format(name))
    lines = [json.loads(line) for line in running.log.splitlines()]
    assert {"psycopg.pool", "_granian"} <= {line.get("logger") for line in lines}
    assert all(line["level"] and line["timestamp"] for line in lines)

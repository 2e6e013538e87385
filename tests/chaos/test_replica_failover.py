"""A primary that is killed, a replica that takes over: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import PoolTimeout

from service import db, migrations
from service.settings import Settings
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load
from tests.support import servers
from tests.support.http import get, store
from tests.support.replica import Pair, running_pair
from tests.support.servers import PASSWORD, Postgres
from tests.support.serving import PATIENCE_S, served
from tests.support.strategies import meter, serving

pytestmark = pytest.mark.anyio

DATABASE: Final = "fleet"
STATES: Final = "/v1/analytics/vehicles/states?limit=1"


def everywhere(ports: list[int], user: str = "fleetwatt_service", **more: str) -> str:
    """Give an address of several servers, of which the one that takes writes is meant."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return psycopg.conninfo.make_conninfo(
        f"postgresql://{user}:{PASSWORD}@{hosts}/{DATABASE}?target_session_attrs=read-write", **more
    )


async def answered_by_the_replica(client: httpx.AsyncClient) -> int:
    """Give how many questions the replica has answered."""
    text = (await client.get("/metrics")).text
    match = re.search(
        r'^fleetwatt_replica_questions_total\{result="answered"\} ([0-9.]+)', text, re.MULTILINE
    )
    return int(float(match[1])) if match else 0


async def so(done: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not done():
            await asyncio.sleep(0.01)


def prepare(pair: Pair, server: Postgres) -> None:
    """Make a database that is in use, with its jobs, and have each commit wait for the replica."""
    server.create_empty(DATABASE)
    migrations.migrate(server.url("fleetwatt_owner", DATABASE))
    with psycopg.connect(server.url("fleetwatt_owner", DATABASE), autocommit=True) as owner:
        # Once a minute otherwise, where it is a job of the database.
        owner.execute(
            "do $$ begin if current_setting('timescaledb.license') = 'timescale' then "
            "perform alter_job(job_id, schedule_interval => interval '1 second', next_start => now()) "
            "from timescaledb_information.jobs where proc_name = 'refresh_rollups'; end if; end $$"
        )
    pair.caught_up()


async def test_a_primary_is_killed(edition: str, tmp_path: Path) -> None:
    """Under load: the replica is promoted, the service finds it by itself, and every reading is counted."""
    root = servers.apache_root() if edition == "apache" else servers.community_root()
    if root is None:
        pytest.skip(f"no TimescaleDB of edition {edition} here")
    with running_pair(root, synchronous=True) as (pair, server):
        prepare(pair, server)
        ports = [pair.primary.port, pair.replica.port]
        settings = Settings(database_url=everywhere(ports))
        replica = everywhere(ports[1:], target_session_attrs="any")
        ledger = Ledger("f")
        async with served(
            settings,
            tmp_path,
            READ_DATABASE_URL=replica,
            ROLLUP_REFRESH_S=1,
            RETRY_MAX_S=0.5,
            # Keys are looked up at the primary.
            KEY_CACHE_S=60,
        ) as service:
            url = f"http://localhost:{service.port}"
            load = Load(ledger, [url], 0, clients=4, publishers=(), seed=edition)
            async with load:
                await so(lambda: len(ledger.acknowledged) > 300)
                before = await answered_by_the_replica(service.client)
                await get(service.client, STATES)
                assert await answered_by_the_replica(service.client) == before + 1
                killed, killed_at = time.monotonic(), datetime.now(UTC)
                await asyncio.to_thread(pair.primary.kill)
                acknowledged = len(ledger.acknowledged)
                # Reads go on meanwhile.
                await get(service.client, STATES)
                await asyncio.to_thread(pair.promote)
                promoted = time.monotonic()
                await so(lambda: len(ledger.acknowledged) > acknowledged)
                taken_over = time.monotonic()
                await so(lambda: len(ledger.acknowledged) > acknowledged + 300)
                assert await load.drain(PATIENCE_S)
            assert load.problems == []
            async with await psycopg.AsyncConnection.connect(
                everywhere(ports, "postgres"), autocommit=True
            ) as connection:
                account = await ledger.account(connection, away=(killed, time.monotonic()))
            sys.stdout.write(
                f"{edition}: acknowledged {account.acknowledged} ({acknowledged} before), stored "
                f"{account.stored}, lost {len(account.lost)}, twice {account.twice}; promoted after "
                f"{promoted - killed:.2f} s, first acknowledged after {taken_over - killed:.2f} s\n"
            )
            assert account.acknowledged == account.stored == account.sent
            assert (account.lost, account.twice, account.changed, account.strangers) == ([], 0, [], [])
            assert (account.states_wrong, account.letters_wrong, account.letters_lost) == ([], [], [])
            await refreshed_since(killed_at, ports)
            assert (await get(service.client, "/health/ready"))["replica"] == "ok"
            assert (await get(service.client, STATES))["vehicles"]
        await refuse_the_former_primary(pair)


async def refreshed_since(moment: datetime, ports: list[int]) -> None:
    """Wait until the rollups are refreshed again: by a job of the promoted server, or by the service."""
    async with (
        asyncio.timeout(PATIENCE_S),
        await psycopg.AsyncConnection.connect(
            everywhere(ports, "fleetwatt_owner"), autocommit=True, row_factory=dict_row
        ) as owner,
    ):
        while True:
            cursor = await owner.execute("select max(refreshed_at) as refreshed_at from rollup_health")
            row: dict[str, Any] | None = await cursor.fetchone()
            assert row is not None
            if row["refreshed_at"] and row["refreshed_at"] > moment:
                return
            await asyncio.sleep(0.1)


async def refuse_the_former_primary(pair: Pair) -> None:
    """Start it again: it takes writes and knows nothing of the other one, so it must not be asked."""
    await asyncio.to_thread(pair.primary.start)
    settings = Settings(
        database_url=everywhere([pair.replica.port]), read_database_url=everywhere([pair.primary.port])
    )
    async with serving(settings) as client, asyncio.timeout(PATIENCE_S):
        while (await get(client, "/health/ready"))["replica"] != "foreign":
            await asyncio.sleep(0.05)


@pytest.mark.either_edition
async def test_a_pool_finds_its_server_again(settings: Settings, postgres: Postgres, database: str) -> None:
    """After an outage, however long, whoever asks is answered: no pause of an earlier try goes on."""
    name = sql.Identifier(database)
    ask = "select 1 as one"
    with postgres.admin() as admin:
        admin.execute(sql.SQL("alter database {} allow_connections false").format(name))
        async with db.read_pool(settings) as pool:
            with pytest.raises(PoolTimeout):
                await db.fetch_all(pool, ask)
            await asyncio.sleep(3)
            admin.execute(sql.SQL("alter database {} allow_connections true").format(name))
            assert await db.fetch_all(pool, ask) == [{"one": 1}]


@pytest.mark.either_edition
async def test_a_server_that_says_nothing(settings: Settings) -> None:
    """One address of several swallows every word; with the order left to chance the other is found."""
    known = psycopg.conninfo.conninfo_to_dict(settings.database_url)
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        url = psycopg.conninfo.make_conninfo(
            settings.database_url,
            host="127.0.0.1,127.0.0.1",
            port=f"{silent.getsockname()[1]},{known['port']}",
            target_session_attrs="read-write",
            load_balance_hosts="random",
        )
        async with serving(settings, database_url=url) as client, asyncio.timeout(2 * PATIENCE_S):
            while (await client.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.05)
            while (await client.post("/v1/telemetry", json=[])).status_code == 503:
                await asyncio.sleep(0.05)
            await store(client, meter())

"""Fixtures: a database per test on each TimescaleDB edition that is here, a broker, the HTTP application."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import psycopg
import pytest
from litestar.testing import AsyncTestClient
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from service.app import create_app
from service.ingest.pipeline import Pipeline
from service.settings import Settings
from tests.support import servers
from tests.support.servers import Postgres

# A busy machine must not fail a property: time is measured in bench/.
hypothesis.settings.register_profile("fleetwatt", deadline=None)
hypothesis.settings.load_profile("fleetwatt")

EDITIONS = ["apache", "community"]
_NO_COMMUNITY = "no TimescaleDB Community here: FLEETWATT_TEST_PG_BIN can name the bin folder of one"


@cache
def _root(edition: str) -> Path | None:
    return servers.apache_root() if edition == "apache" else servers.community_root()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what would say the same twice: on Community, tests that do not depend on the edition."""
    twice = {
        item
        for item in items
        if item.get_closest_marker("either_edition")
        and getattr(item, "callspec", None) is not None
        and item.callspec.params.get("edition") == "community"  # type: ignore[attr-defined]
    }
    if twice:
        config.hook.pytest_deselected(items=list(twice))
        items[:] = [item for item in items if item not in twice]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say on which editions the suite ran."""
    here = [edition for edition in EDITIONS if _root(edition)]
    missing = [edition for edition in EDITIONS if edition not in here]
    line = f"TimescaleDB editions: ran on {', '.join(here)}"
    terminalreporter.write_line(line + (f"; NOT on {', '.join(missing)}: {_NO_COMMUNITY}" if missing else ""))


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run async tests on asyncio with uvloop, as the service does."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def running_servers() -> Iterator[dict[str, Postgres]]:
    """Hold the servers of this test process; each edition starts when the first test wants it."""
    with ExitStack() as stack:
        started = _Started(stack)
        yield started


class _Started(dict[str, Postgres]):
    def __init__(self, stack: ExitStack) -> None:
        super().__init__()
        self._stack = stack

    def __missing__(self, edition: str) -> Postgres:
        root = _root(edition)
        if root is None:
            pytest.skip(_NO_COMMUNITY)
        self[edition] = self._stack.enter_context(
            servers.running_postgres(root, {"max_wal_size": "128MB"}, in_memory=True)
        )
        return self[edition]


@pytest.fixture(params=EDITIONS)
def edition(request: pytest.FixtureRequest) -> str:
    """Name the TimescaleDB edition under test; every test that uses a database runs on both."""
    name: str = request.param
    return name


@pytest.fixture
def postgres(edition: str, running_servers: dict[str, Postgres]) -> Postgres:
    """Give the server of the edition."""
    return running_servers[edition]


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """Give the name of a migrated, empty database of the test's own."""
    with postgres.database() as name:
        yield name


@pytest.fixture(scope="session")
def broker_port() -> Iterator[int]:
    """Give the port of a real Mosquitto."""
    with servers.running_mosquitto(servers.apache_root()) as port:
        yield port


@pytest.fixture
def settings(postgres: Postgres, database: str) -> Settings:
    """Give settings of a service on the test's database, as the service's role."""
    return Settings(
        database_url=postgres.url("fleetwatt_service", database),
        migrate_database_url=postgres.url("fleetwatt_owner", database),
        retry_max_s=0.2,
        http_hosts="testserver.local",  # what Litestar's client calls us
    )


@pytest.fixture
def mqtt_settings(settings: Settings, broker_port: int, database: str, edition: str) -> Settings:
    """Give settings with a broker, and a client id and a share of the test's own."""
    name = f"{edition}-{database}"
    return msgspec.structs.replace(
        settings, mqtt_url=f"mqtt://127.0.0.1:{broker_port}", mqtt_client_id=name, mqtt_share=name
    )


@pytest.fixture
def ready() -> Iterator[socket.socket]:
    """Give a socket at which a worker says that it has subscribed, as it does to systemd."""
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
    ):
        notified.bind(f"{folder}/ready")
        notified.setblocking(False)
        patch.setenv("NOTIFY_SOCKET", f"{folder}/ready")
        yield notified


@pytest.fixture
async def owner(postgres: Postgres, database: str) -> AsyncIterator[AsyncConnection[dict[str, Any]]]:
    """Give a connection of the owner's role, to look into tables and to arrange them."""
    connection = await psycopg.AsyncConnection.connect(
        postgres.url("fleetwatt_owner", database), autocommit=True, row_factory=dict_row
    )
    async with connection:
        yield connection


@pytest.fixture
async def pipeline(settings: Settings) -> AsyncIterator[Pipeline]:
    """Give a pipeline that writes to the test's database."""
    async with Pipeline(settings, "test") as running:
        yield running


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[AsyncTestClient[Any]]:
    """Give a client of the HTTP application on the test's database."""
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(AsyncTestClient(create_app(settings)))

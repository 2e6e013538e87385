"""A primary and a replica of each edition, in place of the suite's server: fixtures give databases there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest

from service.settings import Settings
from tests.support import servers
from tests.support.replica import Pair, running_pair
from tests.support.servers import Postgres


@pytest.fixture(scope="package")
def pairs() -> Iterator[Callable[[str], tuple[Pair, Postgres]]]:
    """Start a pair of each edition when the first test wants it."""
    started: dict[str, tuple[Pair, Postgres]] = {}
    # Without them cloning a template has no race.
    changed = {"timescaledb.max_background_workers": "0"}
    with ExitStack() as stack:

        def start(edition: str) -> tuple[Pair, Postgres]:
            root = servers.apache_root() if edition == "apache" else servers.community_root()
            if root is None:
                pytest.skip(f"no TimescaleDB of edition {edition} here")
            if edition not in started:
                started[edition] = stack.enter_context(running_pair(root, changed=changed))
            return started[edition]

        yield start


@pytest.fixture
def pair(edition: str, pairs: Callable[[str], tuple[Pair, Postgres]]) -> Pair:
    """Give the servers of the edition."""
    return pairs(edition)[0]


@pytest.fixture
def postgres(edition: str, pairs: Callable[[str], tuple[Pair, Postgres]]) -> Postgres:
    """Give the primary to the fixtures of the suite."""
    return pairs(edition)[1]


@pytest.fixture
def settings(postgres: Postgres, database: str, pair: Pair) -> Settings:
    """Give settings of a service with a replica."""
    url = postgres.url("fleetwatt_service", database)
    return Settings(
        database_url=url,
        read_database_url=psycopg.conninfo.make_conninfo(url, port=pair.replica.port),
        retry_max_s=0.2,
    )

"""Fixtures: a browser, and engines with something to look at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Browser

from service.settings import Settings
from tests.support import browser as browsers
from tests.support.servers import Postgres
from tests.support.serving import Served, served
from tests.support.shown_fleet import VARIABLES, fill


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Give a browser; each test opens contexts of its own in it, which share nothing."""
    path = browsers.chromium()
    if path is None:
        pytest.skip(browsers.NO_BROWSER)
    async with browsers.running_browser(path) as running:
        yield running


# One edition: pages show what the API answers, which other tests hold on both.
@pytest.fixture(scope="session")
def fleet(
    running_servers: dict[str, Postgres], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """Give settings of a database with a fleet in it."""
    if browsers.chromium() is None:
        pytest.skip(browsers.NO_BROWSER)
    postgres = running_servers["apache"]
    with postgres.database() as name:
        settings = _settings(postgres, name)
        asyncio.run(fill(settings, tmp_path_factory.mktemp("fill")))
        yield settings


@pytest.fixture(scope="module")
async def engine(fleet: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """Give a running service with a fleet, open to all on this machine."""
    async with served(fleet, tmp_path_factory.mktemp("engine"), **VARIABLES) as running:
        yield running


@pytest.fixture(scope="module")
async def quiet(
    running_servers: dict[str, Postgres], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """Give a running service without devices, to which tests of a file send what they look at."""
    postgres = running_servers["apache"]
    with postgres.database() as name:
        async with served(_settings(postgres, name), tmp_path_factory.mktemp("quiet")) as running:
            yield running


@pytest.fixture
def small(running_servers: dict[str, Postgres]) -> Iterator[Settings]:
    """Give settings of an empty database of the test's own."""
    postgres = running_servers["apache"]
    with postgres.database() as name:
        yield _settings(postgres, name)


def _settings(postgres: Postgres, name: str) -> Settings:
    return Settings(
        database_url=postgres.url("fleetwatt_service", name),
        migrate_database_url=postgres.url("fleetwatt_owner", name),
    )

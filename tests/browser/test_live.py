"""Figures come in live; a page says when they do not, and catches up by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from service.readings import VehicleReading
from service.settings import Settings
from tests.support.browser import by, visiting
from tests.support.http import store
from tests.support.proxy import Proxy
from tests.support.serving import Served, served

pytestmark = pytest.mark.anyio

# What a browser says of requests while nothing answers.
LOST: Final = ("ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE", "ERR_NETWORK", "ERR_SOCKET")


async def send(engine: Served, vehicle_id: str, soc: float, *, minutes_ago: float = 0) -> None:
    """Send a reading of a vehicle, as of now."""
    moment = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    await store(engine.client, VehicleReading(vehicle_id, moment, soc, 0.5, 21.5))


async def is_live(page: Page, state: str = "live") -> None:
    """Wait until a page says how figures come in."""
    await expect(page.locator(by("live"))).to_have_attribute("data-state", state)


def soc(page: Page, vehicle_id: str) -> Locator:
    """Give the state of charge in a vehicle's row."""
    return page.locator(f'{by("vehicle-row")}[data-id="{vehicle_id}"]').locator(by("cell-soc"))


async def test_a_reading_shows_at_once(browser: Browser, quiet: Served) -> None:
    """A row changes with the reading, without anybody asking; a new vehicle gets a row."""
    await send(quiet, "VH-LIVE-1", 40)
    async with visiting(browser, quiet.address) as visit:
        page = await visit.open("/?q=VH-LIVE")
        await expect(soc(page, "VH-LIVE-1")).to_have_text("40 %")
        await is_live(page)
        asked = len([one for one in visit.requests if "vehicles/states" in one])
        await send(quiet, "VH-LIVE-1", 41)
        await expect(soc(page, "VH-LIVE-1")).to_have_text("41 %")
        await send(quiet, "VH-LIVE-2", 77)
        await expect(soc(page, "VH-LIVE-2")).to_have_text("77 %")
        assert len([one for one in visit.requests if "vehicles/states" in one]) == asked


async def test_a_stream_is_lost_and_regained(browser: Browser, quiet: Served) -> None:
    """The page says so, comes back by itself, and has what came meanwhile."""
    await send(quiet, "VH-LOST-1", 40)
    async with Proxy(quiet.port) as proxy, visiting(browser, f"http://127.0.0.1:{proxy.port}") as visit:
        visit.expect(*LOST)
        page = await visit.open("/?q=VH-LOST")
        await is_live(page)
        await expect(soc(page, "VH-LOST-1")).to_have_text("40 %")
        proxy.away = True
        proxy.cut()
        await is_live(page, "again")
        await send(quiet, "VH-LOST-1", 55)
        await expect(soc(page, "VH-LOST-1")).to_have_text("40 %")
        proxy.away = False
        await is_live(page)
        await expect(soc(page, "VH-LOST-1")).to_have_text("55 %")
        await send(quiet, "VH-LOST-1", 56)
        await expect(soc(page, "VH-LOST-1")).to_have_text("56 %")


async def test_an_engine_that_does_not_answer(browser: Browser, quiet: Served) -> None:
    """After some seconds the page says that its figures are old; once they are not, it says no more."""
    async with Proxy(quiet.port) as proxy, visiting(browser, f"http://127.0.0.1:{proxy.port}") as visit:
        visit.expect(*LOST)
        page = await visit.open("/")
        await is_live(page)
        await expect(page.locator(by("kpi-charging"))).to_contain_text("reporting")
        proxy.away = True
        proxy.cut()
        await expect(page.locator(by("stale"))).to_contain_text("does not answer")
        proxy.away = False
        await expect(page.locator(by("stale"))).not_to_contain_text("does not answer")


async def test_too_many_streams(browser: Browser, small: Settings, tmp_path: Path) -> None:
    """A page that gets no stream says so and asks instead; figures go on to move."""
    async with served(small, tmp_path, STREAM_CLIENTS_MAX=1) as engine:
        await send(engine, "VH-1", 40)
        async with visiting(browser, engine.address) as visit:
            visit.expect("status of 503")
            await is_live(await visit.open("/"))
            page = await visit.open("/")
            await is_live(page, "polling")
            await expect(soc(page, "VH-1")).to_have_text("40 %")
            await send(engine, "VH-1", 41)
            await expect(soc(page, "VH-1")).to_have_text("41 %")


async def test_stale_data(browser: Browser, small: Settings, tmp_path: Path) -> None:
    """Where no device has sent for long the page says so, until one does."""
    async with served(small, tmp_path) as engine:
        await send(engine, "VH-1", 40, minutes_ago=50)
        async with visiting(browser, engine.address) as visit:
            page = await visit.open("/")
            await expect(page.locator(by("stale"))).to_contain_text("stale")
            await expect(page.locator(by("stale"))).to_contain_text("50\u202fmin ago")
            await expect(page.locator(by("vehicle-row"))).to_have_attribute("data-state", "silent")
            await send(engine, "VH-1", 41)
            await expect(page.locator(by("vehicle-row"))).to_have_attribute("data-state", "charging")
            await expect(page.locator(by("stale"))).to_be_hidden()


async def test_nothing_yet(browser: Browser, small: Settings, tmp_path: Path) -> None:
    """An engine without a vehicle says how the first one comes; its first reading makes a row."""
    async with served(small, tmp_path) as engine, visiting(browser, engine.address) as visit:
        page = await visit.open("/")
        await expect(page.locator(by("empty"))).to_contain_text("curl")
        await is_live(page)
        await send(engine, "VH-1", 40)
        await expect(soc(page, "VH-1")).to_have_text("40 %")
        await expect(page.locator(by("empty"))).to_be_hidden()

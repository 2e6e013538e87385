"""The API page in a browser: it loads, explains each route, and tries one out."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from tests.support.browser import Look, barriers, picture, visiting
from tests.support.serving import Served

pytestmark = pytest.mark.anyio


async def test_it_tries_an_operation(browser: Browser, engine: Served) -> None:
    """What it is asked to send reaches the engine, and the answer is shown."""
    async with visiting(browser, engine.address) as visit:
        page = await visit.open("/api")
        operation = page.locator(".opblock", has_text="Liveness probe")
        await operation.locator(".opblock-summary-control").click()
        await operation.get_by_role("button", name="Execute").click()
        answer = operation.locator(".live-responses-table tr.response")
        await expect(answer).to_contain_text('"status": "ok"')


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
async def test_how_it_looks(browser: Browser, engine: Served, look: Look) -> None:
    """It loads from the engine alone, and keeps nobody out."""
    async with visiting(browser, engine.address, look) as visit:
        page = await visit.open("/api")
        await expect(page.locator(".opblock").first).to_be_visible()
        await picture(page, f"api-{look}")
        assert await barriers(page) == []

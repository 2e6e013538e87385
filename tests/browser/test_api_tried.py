"""The API page as people use it: examples are sent as they stand, a key is shown, nothing is kept out."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from service.settings import Settings
from tests.support.browser import Look, barriers, picture, visiting
from tests.support.serving import Served, make_key, served

pytestmark = pytest.mark.anyio


async def opened(page: Page, summary: str) -> Locator:
    """Unfold the operation with a summary."""
    operation = page.locator(".opblock", has_text=summary)
    await operation.locator(".opblock-summary-control").click()
    return operation


async def executed(operation: Locator, status: int) -> Locator:
    """Send what stands in the form; give the answer, which has this status."""
    await operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table tr.response")
    await expect(answer.locator(".response-col_status")).to_have_text(str(status))
    return answer


async def test_examples_are_sent_as_they_stand(browser: Browser, engine: Served) -> None:
    """A reading goes in, as JSON and as lines, and a vehicle's performance comes out."""
    async with visiting(browser, engine.address) as visit:
        page = await visit.open("/api")
        telemetry = await opened(page, "Readings of either kind")
        await expect(await executed(telemetry, 201)).to_contain_text('"accepted"')
        await telemetry.locator("select.examples-select-element").select_option("mixed")
        await expect(await executed(telemetry, 200)).to_contain_text('"rejected": []')
        performance = await opened(page, "Energy billed, delivered and lost by a vehicle")
        await expect(performance.get_by_placeholder("vehicleId")).to_have_value("VH-0001")
        await expect(await executed(performance, 200)).to_contain_text('"efficiencyRatio"')


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
async def test_an_open_operation(browser: Browser, engine: Served, look: Look) -> None:
    """With its form, its answer and its examples it keeps nobody out, in either colour scheme."""
    async with visiting(browser, engine.address, look) as visit:
        page = await visit.open("/api")
        telemetry = await opened(page, "Readings of either kind")
        await executed(telemetry, 201)
        await telemetry.scroll_into_view_if_needed()
        await picture(page, f"api-tried-{look}")
        assert await barriers(page) == []


async def test_a_key_is_shown(browser: Browser, small: Settings, tmp_path: Path) -> None:
    """Where keys are on, what is sent without one is refused; after "Authorize" it is not."""
    key = await make_key(small)
    async with served(small, tmp_path) as closed, visiting(browser, closed.address) as visit:
        visit.expect("status of 401")
        page = await visit.open("/api")
        stats = await opened(page, "Figures about the engine")
        await expect(await executed(stats, 401)).to_contain_text('"missing_key"')
        await page.get_by_role("button", name="Authorize", exact=True).click()
        form = page.locator(".auth-container", has_text="apiKey").first
        await form.get_by_role("textbox").fill(key)
        await form.get_by_role("button", name="Apply credentials").click()
        await page.get_by_role("button", name="Close").first.click()
        await expect(await executed(stats, 200)).to_contain_text('"deadLetters"')


async def test_the_way_to_the_dashboard(browser: Browser, engine: Served) -> None:
    """A line at the head leads there."""
    async with visiting(browser, engine.address) as visit:
        page = await visit.open("/api")
        await page.get_by_role("link", name="fleetwatt", exact=True).click()
        await page.wait_for_url(f"{engine.address}/")

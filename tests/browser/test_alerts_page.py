"""The pages of alerts and of the engine: what the API tells, filtered and in words."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, expect

from tests.support.browser import by, eventually, figures, settled, visiting
from tests.support.http import get
from tests.support.serving import Served

pytestmark = pytest.mark.anyio


async def test_alerts(browser: Browser, engine: Served) -> None:
    """Open ones at first; filters by state, vehicle and meter are in the address, and can be cleared."""
    told = (await get(engine.client, "/v1/alerts?open=true&limit=1000"))["alerts"]
    one = told[0]
    async with visiting(browser, engine.address) as visit:
        page = await visit.open("/alerts")
        rows = page.locator(by("alert-row"))
        await expect(rows).to_have_count(min(len(told), 25))
        await expect(page.locator(by("alert-count"))).to_have_text(str(len(told)))
        row = page.locator(f'{by("alert-row")}[data-id="{one["alertId"]}"]')
        shown = await figures(row)
        lost = one["totalAcConsumedKwh"] - one["totalDcDeliveredKwh"]
        for figure in (one["ratioLatest"] * 100, one["ratioWorst"] * 100, lost):
            assert pytest.approx(figure, abs=0.06) in shown
        await page.locator(by("vehicle")).fill(one["vehicleId"])
        await expect(rows).to_have_count(1)
        await expect(page).to_have_url(re.compile(f"vehicleId={one['vehicleId']}"))
        await page.reload()
        await expect(rows).to_have_count(1)
        await page.locator(by("state-closed")).check()
        await expect(page.locator(by("empty"))).to_be_visible()
        await page.locator(by("clear")).click()
        await expect(rows).to_have_count(min(len(told), 25))
        await page.locator(by("meter")).fill("no such!")
        visit.expect("status of 400")
        await expect(page.get_by_role("alert").filter(has_text="must be")).to_be_visible()
        await page.locator(by("clear")).click()
        await row.get_by_role("link", name=one["vehicleId"]).click()
        await expect(page).to_have_url(f"{engine.address}/vehicles/{one['vehicleId']}")


async def test_engine(browser: Browser, engine: Served) -> None:
    """Readiness, breaker, devices, readings, rollups, dead letters and storage are those of stats."""
    async with visiting(browser, engine.address) as visit:
        page = await visit.open("/engine")
        await settled(page)
        await expect(page.locator(by("ready"))).to_have_attribute("data-state", "good")
        await expect(page.locator(by("breaker"))).to_contain_text("closed")

        async def as_told() -> None:
            stats = await get(engine.client, "/v1/analytics/stats")
            devices = stats["devices"]
            assert (await figures(page.locator(by("devices"))))[0] == devices["vehicles"] + devices["meters"]
            readings = await figures(page.locator(by("readings")))
            assert {stats["readings"][kind]["accepted"] for kind in ("vehicle", "meter")} <= set(readings)
            letters = page.locator(by("letters"))
            for code, count in stats["deadLetters"]["byCode"].items():
                await expect(letters.get_by_role("row", name=code)).to_contain_text(f"{count}")
            assert stats["deadLetters"]["byCode"]
            assert await page.locator(by("storage")).get_by_role("row").count() == len(stats["storage"]) + 1
            await expect(page.locator(by("rollups")).get_by_role("row", name="vehicle")).to_be_visible()

        await eventually(as_told)

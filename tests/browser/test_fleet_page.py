"""The fleet's page: its figures are the API's, and its table finds, sorts and filters."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, expect

from tests.support.browser import ZONE, by, eventually, figures, visiting
from tests.support.http import get
from tests.support.serving import Served
from tests.support.shown_fleet import SILENT, VEHICLES

pytestmark = pytest.mark.anyio

OVERVIEW: Final = f"/v1/analytics/overview?tz={ZONE}"


async def count(engine: Served) -> int:
    """Tell how many vehicles there are; other tests may have added some."""
    found = len((await get(engine.client, "/v1/analytics/vehicles/states?limit=5000"))["vehicles"])
    assert found >= VEHICLES + len(SILENT)
    return found


async def loaded(page: Page) -> None:
    """Wait until all vehicles and what each made of its energy are there."""
    await expect(page.locator(by("shown"))).to_have_text(re.compile(r"^(\d+) of \1$"))
    await expect(page.locator('[data-count="below"]')).not_to_have_text("0")


async def ids(page: Page) -> list[str]:
    """Give the vehicles of the rows that are drawn, from the top."""
    rows = page.locator(by("vehicle-row"))
    return [await row.get_attribute("data-id") or "" for row in await rows.all()]


async def test_its_head_tells_what_the_api_does(browser: Browser, engine: Served) -> None:
    """Charging, power, energy, efficiency and alerts are those of /v1/analytics/overview."""
    async with visiting(browser, engine.address) as visit:
        page = await visit.open("/")

        async def as_told() -> None:
            told = await get(engine.client, OVERVIEW)
            today = told["today"]
            assert today["totalAcConsumedKwh"] > 0
            shown = {
                name: await figures(page.locator(by(name)))
                for name in ("kpi-charging", "kpi-power", "kpi-energy", "kpi-efficiency", "kpi-alerts")
            }
            assert shown["kpi-charging"][0] == told["vehicles"]["charging"]
            assert told["vehicles"]["known"] in shown["kpi-charging"]
            assert shown["kpi-power"][:2] == pytest.approx(
                [told["power"]["acKw"], told["power"]["dcKw"]], abs=0.06
            )
            energy = [today["totalAcConsumedKwh"], today["totalDcDeliveredKwh"], today["energyLossKwh"]]
            assert shown["kpi-energy"][:3] == pytest.approx(energy, abs=0.06)
            assert shown["kpi-efficiency"][0] == pytest.approx(today["efficiencyRatio"] * 100, abs=0.06)
            assert shown["kpi-alerts"][0] == told["alerts"]["open"] > 0

        await eventually(as_told)
        await expect(page.locator(by("alert-count"))).to_be_visible()
        await expect(page.locator(by("zone"))).to_contain_text(ZONE)


async def test_a_row_tells_what_the_api_does(browser: Browser, engine: Served) -> None:
    """State of charge, temperature, energy and efficiency of a vehicle are those that the API gives of it."""
    states = (await get(engine.client, "/v1/analytics/vehicles/states?limit=1000"))["vehicles"]
    fleet = await get(engine.client, "/v1/analytics/fleet?by=vehicle&limit=1000&leastKwh=0")
    below = [one for one in fleet["vehicles"] if one["belowThreshold"]]
    assert below
    state = next(one for one in states if one["vehicleId"] == below[0]["vehicleId"])
    async with visiting(browser, engine.address) as visit:
        page = await visit.open("/")
        await loaded(page)
        await page.locator(by("search")).fill(state["vehicleId"])
        row = page.locator(by("vehicle-row"))
        await expect(row).to_have_count(1)
        await expect(row.get_by_role("link")).to_have_text(state["vehicleId"])

        async def as_told() -> None:
            assert await figures(row.locator(by("cell-soc"))) == pytest.approx([state["soc"]], abs=0.51)
            assert await figures(row.locator(by("cell-temp"))) == pytest.approx(
                [state["batteryTemp"]], abs=0.06
            )
            energy, efficiency = below[0]["totalAcConsumedKwh"], below[0]["efficiencyRatio"] * 100
            assert await figures(row.locator(by("cell-energy"))) == pytest.approx([energy], abs=0.06)
            assert await figures(row.locator(by("cell-efficiency"))) == pytest.approx([efficiency], abs=0.06)

        await eventually(as_told)
        await expect(row.locator(by("cell-efficiency"))).to_contain_text("below the threshold")


async def test_search_and_filters(browser: Browser, engine: Served) -> None:
    """What is searched for is in the address, so a reload and a link show the same."""
    everyone = await count(engine)
    async with visiting(browser, engine.address) as visit:
        page = await visit.open("/")
        await loaded(page)
        await page.keyboard.press("/")
        await expect(page.locator(by("search"))).to_be_focused()
        await page.keyboard.type("vh-001")
        await expect(page.locator(by("shown"))).to_have_text(f"10 of {everyone}")
        assert await ids(page) == [f"VH-001{digit}" for digit in range(10)]
        await expect(page).to_have_url(re.compile(r"\?q=vh-001$"))
        await page.locator(by("search")).fill("nobody")
        await expect(page.locator(by("empty"))).to_be_visible()
        await expect(page.locator(by("vehicles"))).to_be_hidden()
        await page.locator(by("search")).fill("silent")
        await page.locator(by("filter-silent")).check()
        await expect(page.locator(by("shown"))).to_have_text(f"{len(SILENT)} of {everyone}")
        await page.reload()
        await expect(page.locator(by("shown"))).to_have_text(f"{len(SILENT)} of {everyone}")
        await expect(page.locator(by("search"))).to_have_value("silent")
        await expect(page.locator(by("filter-silent"))).to_be_checked()
        assert await ids(page) == list(SILENT)


async def test_below_the_threshold(browser: Browser, engine: Served) -> None:
    """The filter finds the vehicles that the API calls so."""
    fleet = await get(engine.client, "/v1/analytics/fleet?by=vehicle&limit=1000&leastKwh=0")
    below = {one["vehicleId"] for one in fleet["vehicles"] if one["belowThreshold"]}
    everyone = await count(engine)
    async with visiting(browser, engine.address) as visit:
        page = await visit.open("/?state=below")
        await expect(page.locator(by("shown"))).to_have_text(f"{len(below)} of {everyone}")
        assert set(await ids(page)) == below


@pytest.mark.parametrize(
    ("column", "cell"), [("soc", "cell-soc"), ("energy", "cell-energy"), ("temp", "cell-temp")]
)
async def test_sorting(browser: Browser, engine: Served, column: str, cell: str) -> None:
    """Up, then down; those without a figure come last either way; the heading says which."""
    async with visiting(browser, engine.address) as visit:
        page = await visit.open("/")
        await loaded(page)
        button = page.locator(by(f"sort-{column}"))
        heading = page.locator("th", has=button)
        for order, reverse in (("ascending", False), ("descending", True)):
            await button.click()
            await expect(heading).to_have_attribute("aria-sort", order)

            async def in_order(*, down: bool = reverse) -> None:
                shown = [await figures(each) for each in await page.locator(by(cell)).all()]
                known = [each[0] for each in shown if each]
                assert len(known) > 10
                assert known == sorted(known, reverse=down)
                assert shown[: len(known)] == [[each] for each in known]

            await eventually(in_order)


async def test_many_rows_are_few_elements(browser: Browser, engine: Served) -> None:
    """Only rows in sight exist; scrolling brings the others, to the last one."""
    everyone = await count(engine)
    async with visiting(browser, engine.address) as visit:
        page = await visit.open("/?sort=id&order=down")
        await loaded(page)
        first = await ids(page)
        assert first[0] == SILENT[-1]
        assert len(first) < everyone / 2
        await page.mouse.wheel(0, 1_000_000)
        await expect(page.locator(f'{by("vehicle-row")}[data-id="VH-0001"]')).to_be_visible()
        assert len(await ids(page)) < everyone / 2


async def test_the_way_to_a_vehicle(browser: Browser, engine: Served) -> None:
    """A row leads to the vehicle's page, and back leads to the table as it was."""
    everyone = await count(engine)
    async with visiting(browser, engine.address) as visit:
        page = await visit.open("/?q=VH-0042")
        await page.get_by_role("link", name="VH-0042").click()
        await expect(page).to_have_url(f"{engine.address}/vehicles/VH-0042")
        await expect(page).to_have_title(re.compile("VH-0042"))
        await page.go_back()
        await expect(page.locator(by("shown"))).to_have_text(f"1 of {everyone}")


async def test_colours(browser: Browser, engine: Served) -> None:
    """A reader's own choice goes before that of his system, and is kept."""
    async with visiting(browser, engine.address, "dark") as visit:
        page = await visit.open("/")

        async def background() -> Any:
            return await page.evaluate("getComputedStyle(document.body).backgroundColor")

        dark = await background()
        await page.locator(by("theme")).click()
        light = await background()
        assert dark != light
        await page.reload()
        assert await background() == light

"""What holds for every page: it stands by itself, keeps nobody out, and fits on a phone."""

from __future__ import annotations

from typing import Final

import pytest
from playwright.async_api import Browser, expect

from tests.support.browser import Look, barriers, by, picture, settled, visiting
from tests.support.http import get
from tests.support.serving import Served

pytestmark = pytest.mark.anyio

LOOKS: Final = ["light", "dark", "phone"]
PAGES: Final = ["fleet", "vehicle", "meter", "alerts", "engine", "sign-in"]


async def path_of(engine: Served, name: str) -> str:
    """Give where a page is; of the pages of devices, those of a charger that loses energy."""
    if name in {"vehicle", "meter"}:
        alert = (await get(engine.client, "/v1/alerts?open=true&limit=1"))["alerts"][0]
        return f"/{name}s/{alert[f'{name}Id']}"
    return {"fleet": "/"}.get(name, f"/{name}")


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", PAGES)
async def test_page(browser: Browser, engine: Served, name: str, look: Look) -> None:
    """It loads without a fault and from the engine alone; axe finds nothing serious; it fits the window."""
    async with visiting(browser, engine.address, look) as visit:
        page = await visit.open(await path_of(engine, name))
        await settled(page)
        await picture(page, f"{name}-{look}")
        assert await barriers(page) == []
        wide = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1], "the page is wider than the window"


@pytest.mark.parametrize("name", PAGES)
async def test_by_keyboard(browser: Browser, engine: Served, name: str) -> None:
    """The first key leads to a link past the head of the page; whatever has the focus shows it."""
    async with visiting(browser, engine.address) as visit:
        page = await visit.open(await path_of(engine, name))
        await settled(page)
        if name == "sign-in":
            # There one has come to type a key.
            await expect(page.locator(by("key"))).to_be_focused()
        else:
            await page.keyboard.press("Tab")
            await expect(page.locator(".skip")).to_be_focused()
        for _ in range(8):
            await page.keyboard.press("Tab")
            outlined = await page.evaluate(
                "(() => { const at = document.activeElement; const style = getComputedStyle(at);"
                " const near = getComputedStyle(at.nextElementSibling ?? at);"
                " return [at.tagName, style.outlineStyle !== 'none' || style.boxShadow !== 'none'"
                " || near.outlineStyle !== 'none' || near.boxShadow !== 'none']; })()"
            )
            assert outlined[0] == "BODY" or outlined[1], outlined

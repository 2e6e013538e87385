"""A browser as a person has it in front of him, and what a test wants to know of it.

What goes wrong in it without anybody looking is kept: errors of scripts and in the console, requests that
failed, requests that leave the engine. A test that expects some of it says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from time import monotonic
from typing import Any, Final, Literal

from playwright.async_api import Browser, BrowserContext, Locator, Page, Request, async_playwright, expect

Look = Literal["light", "dark", "phone"]

NO_BROWSER: Final = (
    "no Chromium here: install Debian's package chromium, or name one in FLEETWATT_TEST_CHROMIUM"
)
# How long something may take that takes milliseconds; only a failing test waits that long.
PATIENCE_MS: Final = 25_000
ZONE: Final = "Europe/Berlin"
# Artefacts of a run; git ignores them.
PICTURES: Final = Path(__file__).resolve().parents[2] / "build" / "screenshots"
_FLAGS: Final = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Whatever a page names, nothing leaves this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
_LOOKS: Final[dict[Look, dict[str, Any]]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {
        "color_scheme": "light",
        "viewport": {"width": 390, "height": 844},
        "is_mobile": True,
        "has_touch": True,
        "device_scale_factor": 2,
    },
}
# What these rules of WCAG 2 ask for is held; the rest is told by axe, and read by people.
_NUMBER: Final = re.compile(r"(?<![\w.-])-?\d[\d,]*(?:\.\d+)?")
_SERIOUS: Final = {"serious", "critical"}

expect.set_options(timeout=PATIENCE_MS)


def chromium() -> str | None:
    """Give the path of a Chromium, None where there is none."""
    named = os.environ.get("FLEETWATT_TEST_CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("chromium-browser")


@asynccontextmanager
async def running_browser(path: str) -> AsyncIterator[Browser]:
    """Run a browser without a window."""
    # Root has no user namespace to put a sandbox into.
    flags = [*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            await browser.close()


class Visit:
    """A person with a browser of his own, who looks at one engine; `base` is its address."""

    def __init__(self, context: BrowserContext, base: str) -> None:
        self.context = context
        self.base = base
        self.requests: list[str] = []
        self._faults: list[str] = []
        self._expected: list[str] = []
        context.on("console", lambda message: self._hear(message.type, message.text))
        context.on("weberror", lambda error: self._faults.append(f"script: {error.error}"))
        context.on("request", self._see)
        context.on("requestfailed", self._see_failure)

    async def open(self, path: str) -> Page:
        """Open a page of the engine in a new tab."""
        page = await self.context.new_page()
        await page.goto(self.base + path)
        return page

    def expect(self, *patterns: str) -> None:
        """Take these faults (regular expressions) for what the test brings about."""
        self._expected += patterns

    @property
    def faults(self) -> list[str]:
        """List what went wrong, but for what was expected."""
        return [fault for fault in self._faults if not any(re.search(one, fault) for one in self._expected)]

    def _hear(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self._faults.append(f"console: {text}")

    def _see(self, request: Request) -> None:
        self.requests.append(request.url)
        if not request.url.startswith((f"{self.base}/", "data:", f"blob:{self.base}/")):
            self._faults.append(f"left the host: {request.url}")

    def _see_failure(self, request: Request) -> None:
        # Aborted is what was under way when its page was left.
        if request.failure != "net::ERR_ABORTED":
            self._faults.append(f"failed: {request.method} {request.url} {request.failure}")


@asynccontextmanager
async def visiting(browser: Browser, base: str, look: Look = "light", **options: Any) -> AsyncIterator[Visit]:
    """Look at an engine until the end of the block; then nothing may have gone wrong unseen."""
    context = await browser.new_context(locale="en-GB", timezone_id=ZONE, **_LOOKS[look], **options)
    context.set_default_timeout(PATIENCE_MS)
    visit = Visit(context, base)
    try:
        yield visit
    finally:
        await context.close()
    assert not visit.faults, "\n".join(visit.faults)


def by(name: str) -> str:
    """Give the selector of what carries a name for tests."""
    return f'[data-test="{name}"]'


async def picture(page: Page, name: str) -> None:
    """Keep what a page looks like."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=PICTURES / f"{name}.png")


@cache
def _axe() -> str:
    return (files("axe_playwright_python") / "axe.min.js").read_text()


async def barriers(page: Page) -> list[str]:
    """Give what axe-core finds on a page that keeps people out: what it calls serious or critical."""
    # As the browser's own tools would, so past the page's content security policy.
    await page.evaluate(_axe())
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert found["passes"], "axe looked at nothing"
    return [
        f"{rule['id']} ({rule['impact']}): {json.dumps([node['target'] for node in rule['nodes']][:5])}"
        for rule in found["violations"]
        if rule["impact"] in _SERIOUS
    ]


async def figures(place: Locator) -> list[float]:
    """Give the numbers in the words of a place, as a reader sees them."""
    text = (await place.inner_text()).replace("\u2212", "-")
    # A sign belongs to a number only where it does not join it to a word, as in VH-7.
    return [float(number.replace(",", "")) for number in _NUMBER.findall(text)]


async def eventually(check: Callable[[], Awaitable[None]]) -> None:
    """Wait until a check of figures that move passes."""
    deadline = monotonic() + PATIENCE_MS / 1000
    while True:
        try:
            await check()
        except AssertionError:
            if monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            return


async def settled(page: Page) -> None:
    """Wait until nothing on a page is loading any more, and its charts are drawn."""
    await expect(page.locator("h1").first).to_be_attached()
    await page.wait_for_load_state("load")

    async def nothing_loads() -> None:
        assert await page.locator('[aria-busy="true"]').count() == 0
        canvases = await page.locator("figure.chart .canvas").all()
        drawn = [await canvas.locator("svg.main-svg").count() for canvas in canvases]
        assert all(drawn), drawn
        assert "loading" not in await page.locator("main").inner_text()

    await eventually(nothing_loads)

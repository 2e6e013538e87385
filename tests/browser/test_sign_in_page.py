"""Signing in with a key, and out again: what the browser holds is a cookie that no script can read."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from playwright.async_api import Browser, Page, expect

from service.access.key import Key, make
from service.readings import VehicleReading
from service.settings import Settings
from tests.support.browser import Visit, by, visiting
from tests.support.certificates import Authority
from tests.support.http import store
from tests.support.keys import make_key, revoke_key
from tests.support.servers import Postgres
from tests.support.serving import Served, served

pytestmark = pytest.mark.anyio

REFUSED: Final = "status of 401"


class Closed(NamedTuple):
    """An engine that takes no request without a key, with one vehicle."""

    engine: Served
    settings: Settings


@pytest.fixture(scope="module")
async def closed(
    running_servers: dict[str, Postgres], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Closed]:
    """Give a running service with keys."""
    postgres = running_servers["apache"]
    with postgres.database() as name:
        settings = Settings(
            database_url=postgres.url("fleetwatt_service", name),
            migrate_database_url=postgres.url("fleetwatt_owner", name),
        )
        folder = tmp_path_factory.mktemp("closed")
        async with served(settings, folder, KEY_CACHE_S=0.5) as running:
            await store(running.client, VehicleReading("VH-1", datetime.now(UTC), 40.0, 0.5, 20.0))
            make_key(settings, "admin")
            yield Closed(running, settings)


async def signed_in(visit: Visit, key: Key, path: str = "/") -> Page:
    """Open a page, be led to the sign-in, show the key there and be led back."""
    page = await visit.open(path)
    await expect(page).to_have_url(re.compile("/sign-in"))
    await page.locator(by("key")).fill(key.text)
    await page.locator(by("submit")).click()
    await expect(page).to_have_url(visit.base + path)
    return page


async def test_in_and_out(browser: Browser, closed: Closed) -> None:
    """A wrong key is told in words; a good one leads back to where one came from; out is out."""
    key = make_key(closed.settings, "read")
    async with visiting(browser, closed.engine.address) as visit:
        visit.expect(REFUSED)
        page = await visit.open("/?q=VH-1")
        await expect(page).to_have_url(re.compile("/sign-in\\?next="))
        await expect(page.locator(by("key"))).to_be_focused()
        await page.keyboard.type(make().text)
        await page.keyboard.press("Enter")
        await expect(page.locator(by("problem"))).to_contain_text("does not know this key")
        assert await visit.context.cookies() == []
        await page.locator(by("key")).fill(key.text)
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(f"{visit.base}/?q=VH-1")
        await expect(page.locator(by("vehicle-row"))).to_have_count(1)
        await expect(page.locator(by("live"))).to_have_attribute("data-state", "live")
        await expect(page.locator(by("signed-in"))).to_have_text("test")
        [cookie] = await visit.context.cookies()
        assert cookie["name"] == "fleetwatt"
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
        assert cookie["expires"] > datetime.now(UTC).timestamp() + 11 * 3600
        assert await page.evaluate("document.cookie") == ""
        held = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
        assert key.secret not in held
        await page.locator(by("sign-out")).click()
        await expect(page).to_have_url(f"{visit.base}/sign-in")
        assert await visit.context.cookies() == []
        await page.goto(f"{visit.base}/alerts")
        await expect(page).to_have_url(re.compile("/sign-in\\?next=%2Falerts"))
        assert not [one for one in visit.requests if key.secret in one]


@pytest.mark.parametrize(("scope", "words"), [("ingest", "may not read"), ("revoked", "was revoked")])
async def test_keys_that_do_not_sign_in(browser: Browser, closed: Closed, scope: str, words: str) -> None:
    """Why is said in words."""
    key = make_key(closed.settings, "read" if scope == "revoked" else scope)
    if scope == "revoked":
        revoke_key(closed.settings, key)
    async with visiting(browser, closed.engine.address) as visit:
        visit.expect("status of 40[13]")
        page = await visit.open("/sign-in")
        await page.locator(by("key")).fill(key.text)
        await page.locator(by("submit")).click()
        await expect(page.locator(by("problem"))).to_contain_text(words)
        assert await visit.context.cookies() == []


async def test_two_tabs(browser: Browser, closed: Closed) -> None:
    """Signed in in one tab is signed in in all; what is signed out in one is led away in the other."""
    key = make_key(closed.settings, "read")
    async with visiting(browser, closed.engine.address) as visit:
        visit.expect(REFUSED)
        one = await signed_in(visit, key)
        other = await visit.open("/")
        await expect(other.locator(by("vehicle-row"))).to_have_count(1)
        await one.locator(by("sign-out")).click()
        await expect(other).to_have_url(re.compile("/sign-in"))


async def test_a_key_that_is_revoked(browser: Browser, closed: Closed) -> None:
    """Whoever signed in with it is led to the sign-in, also from a page that only listens."""
    key = make_key(closed.settings, "read")
    async with visiting(browser, closed.engine.address) as visit:
        visit.expect(REFUSED)
        page = await signed_in(visit, key)
        await expect(page.locator(by("live"))).to_have_attribute("data-state", "live")
        revoke_key(closed.settings, key)
        await expect(page).to_have_url(re.compile("/sign-in\\?next="))


@pytest.mark.parametrize(
    "after", ["//elsewhere.example/", "https://elsewhere.example/", "javascript:alert(1)"]
)
async def test_it_leads_nowhere_else(browser: Browser, closed: Closed, after: str) -> None:
    """An address of another site, or a script, is not where one goes after it."""
    key = make_key(closed.settings, "read")
    async with visiting(browser, closed.engine.address) as visit:
        page = await visit.open(f"/sign-in?next={after}")
        await page.locator(by("key")).fill(key.text)
        await page.locator(by("submit")).click()
        await expect(page).to_have_url(f"{visit.base}/")


async def test_over_tls(browser: Browser, small: Settings, tmp_path: Path) -> None:
    """There the cookie is Secure and the host's alone, and the browser takes it for such."""
    authority = Authority(tmp_path)
    certificate, private = authority.issue("localhost", "localhost")
    trusting = ssl.create_default_context(cafile=authority.file)
    files = {"HTTP_TLS_CERT_FILE": certificate, "HTTP_TLS_KEY_FILE": private}
    key = make_key(small, "read")
    async with served(small, tmp_path, verify=trusting, **files) as engine:
        base = f"https://localhost:{engine.port}"
        async with visiting(browser, base, ignore_https_errors=True) as visit:
            visit.expect(REFUSED)
            page = await signed_in(visit, key, "/alerts")
            await expect(page.locator(by("empty"))).to_be_visible()
            [cookie] = await visit.context.cookies()
            assert (cookie["name"], cookie["secure"], cookie["httpOnly"]) == ("__Host-fleetwatt", True, True)
            await page.locator(by("sign-out")).click()
            await expect(page).to_have_url(f"{base}/sign-in")
            assert await visit.context.cookies() == []


async def test_where_no_key_is_asked_for(browser: Browser, quiet: Served) -> None:
    """The page says so, and leads on."""
    async with visiting(browser, quiet.address) as visit:
        page = await visit.open("/sign-in")
        await page.locator(by("open")).get_by_role("link").click()
        await expect(page).to_have_url(f"{visit.base}/")

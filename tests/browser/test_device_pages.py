"""The pages of a vehicle and of a meter: figures, charts, sessions and alerts, as the API has them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from service.readings import MeterReading, VehicleReading
from tests.support.browser import Visit, by, eventually, figures, settled, visiting
from tests.support.http import charge, get, store
from tests.support.serving import Served

pytestmark = pytest.mark.anyio


async def alert(engine: Served) -> dict[str, Any]:
    """Give an open alert: a vehicle and a meter that lose energy."""
    found: dict[str, Any] = (await get(engine.client, "/v1/alerts?open=true&limit=1"))["alerts"][0]
    return found


async def asked(engine: Served, visit: Visit, path: str) -> dict[str, Any]:
    """Ask the API what a page asked it last at a path."""
    address = [one for one in visit.requests if path in one][-1]
    return await get(engine.client, address.removeprefix(visit.base))


async def shown(page: Page, *names: str) -> list[float]:
    """Give the one figure of each of these places."""
    return [figure for name in names for figure in await figures(page.locator(by(name)))]


async def test_a_vehicle(browser: Browser, engine: Served) -> None:
    """Newest state, sums of the last day, and that it is below the threshold; three charts are drawn."""
    vehicle_id = (await alert(engine))["vehicleId"]
    state = await get(engine.client, f"/v1/ingest/vehicle/{vehicle_id}/current")
    async with visiting(browser, engine.address) as visit:
        page = await visit.open(f"/vehicles/{vehicle_id}")
        await settled(page)
        await expect(page.locator(by("device-id"))).to_have_text(vehicle_id)
        assert await shown(page, "now-soc", "now-reading", "now-temp") == pytest.approx(
            [state["soc"], state["kwhDeliveredDc"], state["batteryTemp"]], abs=0.06
        )
        hours = (await asked(engine, visit, f"/vehicles/{vehicle_id}/hourly"))["hours"]
        ac = sum(hour["totalAcConsumedKwh"] for hour in hours)
        dc = sum(hour["totalDcDeliveredKwh"] for hour in hours)
        assert ac > 0
        assert await shown(page, "sum-ac", "sum-dc", "sum-lost") == pytest.approx(
            [ac, dc, ac - dc], abs=0.006
        )
        await expect(page.locator(by("sum-efficiency"))).to_contain_text("below the threshold")
        assert await shown(page, "sum-efficiency") == pytest.approx([dc / ac * 100], abs=0.06)
        assert await page.locator(by("chart-energy")).locator(".bars .point").count() == 2 * len(hours)
        for name in ("chart-energy", "chart-efficiency", "chart-battery"):
            await expect(page.locator(by(name))).to_have_attribute("aria-label", re.compile(r"\w+: \w+"))


async def test_its_sessions_and_alerts(browser: Browser, engine: Served) -> None:
    """Each session with its energy and efficiency, and the alert; both lead to the meter."""
    alarm = await alert(engine)
    async with visiting(browser, engine.address) as visit:
        page = await visit.open(f"/vehicles/{alarm['vehicleId']}")
        await settled(page)
        told = (await asked(engine, visit, f"/vehicles/{alarm['vehicleId']}/sessions"))["sessions"]
        assert told
        rows = page.locator(by("session-row"))
        assert [await row.get_attribute("data-id") for row in await rows.all()] == [
            one["sessionId"] for one in told
        ]
        finished = next(one for one in told if one["efficiencyRatio"] is not None)
        row = page.locator(f'{by("session-row")}[data-id="{finished["sessionId"]}"]')
        assert pytest.approx(finished["efficiencyRatio"] * 100, abs=0.06) in await figures(row)
        assert pytest.approx(finished["totalAcConsumedKwh"], abs=0.06) in await figures(row)
        alerts = page.locator(by("alert-row"))
        await expect(alerts.first).to_have_attribute("data-id", str(alarm["alertId"]))
        await alerts.first.get_by_role("link", name=alarm["meterId"]).click()
        await expect(page).to_have_url(f"{engine.address}/meters/{alarm['meterId']}")
        await expect(page.locator(by("device-id"))).to_have_text(alarm["meterId"])


async def test_windows(browser: Browser, engine: Served) -> None:
    """A day, a week, a month, or from and to by hand: in the address, and kept over a reload."""
    vehicle_id = (await alert(engine))["vehicleId"]
    path = f"/vehicles/{vehicle_id}/hourly"

    async with visiting(browser, engine.address) as visit:
        page = await visit.open(f"/vehicles/{vehicle_id}")
        await settled(page)

        async def sums_are_of_what_was_asked() -> None:
            told = await asked(engine, visit, path)
            intervals = told.get("hours") or told["days"]
            wanted = [
                sum(one[f"total{name}Kwh"] for one in intervals) for name in ("AcConsumed", "DcDelivered")
            ]
            assert await shown(page, "sum-ac", "sum-dc") == pytest.approx(wanted, abs=0.006)

        day = await shown(page, "sum-ac")
        for window, asked_by in (("7d", "by=hour"), ("30d", "by=day")):
            await page.locator(by(f"window-{window}")).check()
            await expect(page).to_have_url(re.compile(f"window={window}$"))
            await eventually(sums_are_of_what_was_asked)
            assert asked_by in [one for one in visit.requests if path in one][-1]
        assert (await shown(page, "sum-ac"))[0] >= day[0] > 0
        await page.locator(by("window-custom")).check()
        start = datetime.now(UTC) - timedelta(hours=8)
        await page.locator(by("from")).fill(f"{start:%Y-%m-%dT%H:00}")
        await page.locator(by("to")).fill(f"{start + timedelta(hours=3):%Y-%m-%dT%H:00}")
        await page.locator(by("apply")).click()
        await expect(page).to_have_url(re.compile("from=.*&to="))
        await eventually(sums_are_of_what_was_asked)
        assert len((await asked(engine, visit, path)).get("hours", [])) <= 3
        await page.reload()
        await settled(page)
        await eventually(sums_are_of_what_was_asked)
        await page.locator(by("to")).fill("2020-01-01T00:00")
        await page.locator(by("apply")).click()
        await expect(page.get_by_text("The start must lie before the end.")).to_be_visible()


async def test_a_meter(browser: Browser, engine: Served) -> None:
    """What it counted, what of it was in sessions, what arrived, and whose sessions it had."""
    alarm = await alert(engine)
    meter_id = alarm["meterId"]
    state = await get(engine.client, f"/v1/ingest/meter/{meter_id}/current")
    async with visiting(browser, engine.address) as visit:
        page = await visit.open(f"/meters/{meter_id}")
        await settled(page)
        assert await shown(page, "now-reading", "now-voltage") == pytest.approx(
            [state["kwhConsumedAc"], state["voltage"]], abs=0.06
        )
        hours = (await asked(engine, visit, f"/meters/{meter_id}/hourly"))["hours"]
        counted, ac, dc = (
            sum(hour[name] for hour in hours)
            for name in ("meteredAcKwh", "totalAcConsumedKwh", "totalDcDeliveredKwh")
        )
        assert counted >= ac > 0
        assert await shown(page, "sum-metered", "sum-ac", "sum-dc") == pytest.approx(
            [counted, ac, dc], abs=0.006
        )
        told = (await asked(engine, visit, f"/meters/{meter_id}/sessions"))["sessions"]
        await expect(page.locator(by("session-row"))).to_have_count(len(told))
        await page.locator(by("vehicles")).get_by_role("link", name=alarm["vehicleId"]).click()
        await expect(page).to_have_url(f"{engine.address}/vehicles/{alarm['vehicleId']}")


async def test_a_device_changes_live(browser: Browser, quiet: Served) -> None:
    """A reading shows at once on the page of its vehicle, and on that of its meter."""
    now = datetime.now(UTC)
    await charge(quiet.client, "VH-1", "METER-1", now - timedelta(hours=1), None)
    await store(quiet.client, VehicleReading("VH-1", now - timedelta(minutes=1), 40, 0.5, 20.0))
    await store(quiet.client, MeterReading("METER-1", now - timedelta(minutes=1), 0.6, 229.0))
    async with visiting(browser, quiet.address) as visit:
        vehicle, meter = await visit.open("/vehicles/VH-1"), await visit.open("/meters/METER-1")
        for page in (vehicle, meter):
            await expect(page.locator(by("live"))).to_have_attribute("data-state", "live")
        await expect(vehicle.locator(by("now-soc"))).to_contain_text("40.0")
        await expect(vehicle.locator(by("now-meter"))).to_contain_text("METER-1")
        await expect(meter.locator(by("now-vehicle"))).to_contain_text("VH-1")
        await store(quiet.client, VehicleReading("VH-1", now, 41.5, 0.5, 20.0))
        await store(quiet.client, MeterReading("METER-1", now, 0.6, 231.5))
        await expect(vehicle.locator(by("now-soc"))).to_contain_text("41.5")
        await expect(meter.locator(by("now-voltage"))).to_contain_text("231.5")


async def test_a_device_that_nobody_knows(browser: Browser, quiet: Served) -> None:
    """Its page says so, in words; an odd id breaks nothing."""
    async with visiting(browser, quiet.address) as visit:
        visit.expect("status of 404", "status of 400")
        for vehicle_id in ("VH-NOBODY", "%3Cimg%20src=x%20onerror=alert(1)%3E"):
            page = await visit.open(f"/vehicles/{vehicle_id}")
            await expect(page.locator("main")).to_contain_text(
                re.compile("No reading of|must be 1 to 64 characters")
            )
            assert await page.locator("main img").count() == 0

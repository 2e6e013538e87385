"""Takes the pictures in docs/images anew: a simulated fleet as the dashboard shows it, by `just pictures`."""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from PIL import Image  # comes with matplotlib
from playwright.async_api import Page, ViewportSize

from service.settings import Settings
from service.simulator.run import SimulationOptions, simulate
from tests.support import browser as browsers
from tests.support import servers
from tests.support.browser import Look, settled
from tests.support.http import get
from tests.support.serving import Served, served
from tests.support.shown_fleet import FAULTY_SHARE, SEED, VARIABLES, VEHICLES, fill

IMAGES: Final = Path(__file__).resolve().parents[2] / "docs" / "images"
_PATIENCE_S: Final = 240
_SIZE: Final = ViewportSize(width=1120, height=720)


def main() -> None:
    """Start a server, fill it, simulate, and take the pictures."""
    path = browsers.chromium()
    if path is None:
        sys.exit(browsers.NO_BROWSER)
    with (
        servers.running_postgres(servers.apache_root(), in_memory=True) as postgres,
        postgres.database() as name,
        tempfile.TemporaryDirectory() as folder,
    ):
        settings = Settings(
            database_url=postgres.url("fleetwatt_service", name),
            migrate_database_url=postgres.url("fleetwatt_owner", name),
        )
        asyncio.run(_take(settings, Path(folder), path))


async def _take(settings: Settings, folder: Path, path: str) -> None:
    await fill(settings, folder)
    async with served(settings, folder, **VARIABLES) as engine, browsers.running_browser(path) as browser:
        options = SimulationOptions(
            devices=VEHICLES,
            interval_s=5.0,
            via="http",
            http_url=engine.address,
            seed=SEED,
            faulty_share=FAULTY_SHARE,
        )
        simulation = asyncio.create_task(simulate(options, lambda _: None))
        await _backfill_is_over(engine)
        vehicle_id = await _charging_badly(engine)
        looks: list[tuple[str, str, Look]] = [
            ("fleet", "/", "light"),
            ("vehicle", f"/vehicles/{vehicle_id}", "dark"),
        ]
        for name, where, look in looks:
            async with browsers.visiting(browser, engine.address, look) as visit:
                page = await visit.open(where)
                await page.set_viewport_size(_SIZE)
                await settled(page)
                await _save(page, name)
        simulation.cancel()
        with suppress(asyncio.CancelledError):
            await simulation


async def _backfill_is_over(engine: Served) -> None:
    """Wait until the ingest rate is that of the devices which send live."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            lag_s = (await get(engine.client, "/v1/analytics/overview"))["ingest"]["lagMeanSeconds"]
            if lag_s is not None and lag_s < 5:
                return
            await asyncio.sleep(1)


async def _charging_badly(engine: Served) -> str:
    """Give a vehicle that loses energy; one that does so right now, if there is one."""
    alerts = (await get(engine.client, "/v1/alerts?open=true&limit=1000"))["alerts"]
    ids = [alert["vehicleId"] for alert in alerts]
    states = (await get(engine.client, "/v1/analytics/vehicles/states?limit=1000"))["vehicles"]
    charging = {state["vehicleId"] for state in states if state["kwhDeliveredDc"] > 0}
    chosen: str = next((each for each in ids if each in charging), ids[0])
    return chosen


async def _save(page: Page, name: str) -> None:
    """Keep a picture with as many colours as it needs, which are few: it travels with the repository."""
    taken = Image.open(io.BytesIO(await page.screenshot()))
    IMAGES.mkdir(exist_ok=True)
    taken.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()

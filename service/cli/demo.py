"""`fleetwatt demo`: everything in one terminal, on a simulated fleet, with the books balanced at the end."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import rich_click as click
from rich.live import Live

from service import lifecycle, log
from service import settings as settings_module
from service.broker import BrokerAddress
from service.cli.demo_key import own_key
from service.cli.demo_view import DemoView
from service.cli.options import Duration, data_dir_option
from service.cli.progress import console, install_with_progress
from service.embedded import instance
from service.embedded.account import server_account
from service.embedded.instance import Running
from service.embedded.stack import Ports, Stack
from service.errors import FleetwattError
from service.simulator.fleet import Fleet
from service.simulator.http import HttpSender, key_headers
from service.simulator.network import Disturbances, Network
from service.simulator.progress import Progress
from service.simulator.run import SimulationOptions, simulate
from service.simulator.seed import seed

_SEED: Final = 1
_FAULTY_SHARE: Final = 0.03
_BACKFILL: Final = timedelta(days=1)
_BACKFILL_INTERVAL_S: Final = 60.0
_DRIFT_S: Final = 20.0
_SETTLE_S: Final = 20.0


@click.command("demo")
@click.argument("seconds", type=Duration(), required=False)
@click.option(
    "--devices", type=click.IntRange(1, 20_000), default=200, show_default=True, help="Vehicles and meters."
)
@click.option(
    "--interval", type=Duration(), default=5.0, show_default=True, help="Time between two readings."
)
@data_dir_option
def command(seconds: float | None, devices: int, interval: float, data_dir: Path | None) -> None:
    """Start everything, seed a fleet, backfill a day, simulate over MQTT, and watch it live.

    Runs until Ctrl-C, or for SECONDS; then it says what was sent and what is stored. The exit code is 0 only
    if nothing was lost.
    """
    began = time.monotonic()
    settings = settings_module.load()
    log.configure("warning", settings.log_format)
    folder = instance.prepare_dir(
        data_dir or instance.default_dirs(settings)["demo"], server_account(settings.run_as)
    )
    servers = install_with_progress(settings)
    with instance.locked(folder):
        stack = Stack(settings, servers, folder, Ports(), _say)
        books = asyncio.run(_run(stack, began, seconds, devices, interval))
    click.echo(
        f"sent {books['sent']}, stored {books['stored']}, duplicates {books['duplicates']}, "
        f"dead letters {books['dead_letters']}, lost {books['lost']}"
    )
    sys.exit(0 if books["lost"] == 0 else 1)


def _say(what: str) -> None:
    console.print(f"[dim]{what}[/dim]", highlight=False)


async def _run(
    stack: Stack, began: float, seconds: float | None, devices: int, interval_s: float
) -> dict[str, int]:
    stop = lifecycle.stop_requested()
    async with (
        stack,
        own_key(stack.running) as api_key,
        httpx.AsyncClient(
            base_url=stack.running.http, trust_env=False, timeout=30, headers=key_headers(api_key)
        ) as api,
    ):
        demo = _Demo(stack.running, api, devices, interval_s, api_key)
        work = asyncio.create_task(demo.run(began, seconds))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            _say("stopping: sending the rest and waiting for its acknowledgements")
            demo.stop()
        await work
        return await demo.balance()


class _Demo:
    """One run of the demo against a running engine."""

    def __init__(
        self, running: Running, api: httpx.AsyncClient, devices: int, interval_s: float, api_key: str
    ) -> None:
        self._running = running
        self._api = api
        self._devices = devices
        self._interval_s = interval_s
        self._api_key = api_key
        self._fleet = Fleet(devices, devices, _SEED, _FAULTY_SHARE)
        self._before: dict[str, int] = {}
        self._backfill = Progress()
        self._live = Progress()
        self._simulation: asyncio.Task[Progress] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the simulation early; what it generated is still sent."""
        self._stopped = True
        if self._simulation is not None:
            self._simulation.cancel()

    async def run(self, began: float, seconds: float | None) -> None:
        """Seed, backfill, simulate and show."""
        _say(f"dashboard: {self._running.http}/, API and docs: .../api, MQTT: {self._running.mqtt}")
        self._before = _books(await self._stats())
        now = datetime.now(UTC)
        new, known = await seed(
            self._running.service_database, self._fleet, now - _BACKFILL, now + timedelta(days=2)
        )
        _say(f"{self._devices} vehicles and meters, {new + known} charging sessions ({new} new)")
        await self._fill(now, began)
        if self._stopped:
            return
        options = SimulationOptions(
            devices=self._devices,
            interval_s=self._interval_s,
            for_s=seconds,
            via="mqtt",
            broker=BrokerAddress.from_url(self._running.mqtt),
            seed=_SEED,
            faulty_share=_FAULTY_SHARE,
            # A little of everything that happens to real fleets.
            disturbances=Disturbances(
                drift_s=_DRIFT_S, outages=0.02, outage_s=30, repeats=0.02, shuffle=0.02
            ),
        )
        self._simulation = asyncio.create_task(simulate(options, self._note))
        await self._show(self._simulation)

    def _note(self, progress: Progress) -> None:
        self._live = progress

    async def _fill(self, now: datetime, began: float) -> None:
        """Backfill by the minute, from a day ago or from where an earlier demo ended."""
        end = now.replace(second=0, microsecond=0)
        start = end - _BACKFILL
        newest = (await self._stats())["newestReading"]["vehicle"]
        if newest is not None:
            # Past the last tick of an earlier demo, whatever the clock of the device that reported it.
            known_until = datetime.fromisoformat(newest) + timedelta(seconds=_DRIFT_S)
            start = max(start, known_until.replace(second=0, microsecond=0) + timedelta(minutes=1))
        start = min(start, end)
        # The same clocks as in the live part: otherwise a live reading could meet a backfilled timestamp.
        clocks = Network(_SEED, Disturbances(drift_s=_DRIFT_S))
        minutes = int((end - start).total_seconds() // 60)
        _say(f"backfilling {minutes} minutes of history over HTTP")
        async with HttpSender(
            self._running.http, self._backfill, connections=4, batch=5000, api_key=self._api_key
        ) as sender:
            for tick, readings in enumerate(self._fleet.readings(start, end, _BACKFILL_INTERVAL_S)):
                self._backfill.generated += len(readings)
                await sender.send(clocks.pass_on(readings))
                if tick == 0:
                    await sender.drain(30)
                    _say(f"first reading stored {time.monotonic() - began:.1f} s after the start")
                if self._stopped:
                    break
            await sender.drain(60)

    async def _show(self, simulation: asyncio.Task[Progress]) -> None:
        view = DemoView(self._running)
        screen = (
            Live(console=console, auto_refresh=False) if console.is_terminal else contextlib.nullcontext()
        )
        with screen as live:
            beat = 0
            while not simulation.done():
                stats, fleet = await asyncio.gather(self._stats(), self._fleet_answer())
                change = _since(self._before, _books(stats))
                if live is not None:
                    live.update(view.render(self._sent(), change, self._live, stats, fleet), refresh=True)
                elif beat % 5 == 0:
                    console.print(view.line(self._sent(), change, self._live, fleet), soft_wrap=True)
                beat += 1
                await asyncio.wait([simulation], timeout=1.0)
        await simulation

    def _sent(self) -> int:
        """Count distinct readings handed over, repeats left out."""
        return self._backfill.sent + self._live.distinct

    async def balance(self) -> dict[str, int]:
        """Hold what was sent against what the database says is stored.

        Over MQTT it is the broker that acknowledges: the last messages may still be on their way.
        """
        deadline = time.monotonic() + _SETTLE_S
        while True:
            change = _since(self._before, _books(await self._stats()))
            if change["stored"] >= self._sent() or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        return {"sent": self._sent(), **change, "lost": max(0, self._sent() - change["stored"])}

    async def _stats(self) -> dict[str, Any]:
        return await self._get("/v1/analytics/stats")

    async def _fleet_answer(self) -> dict[str, Any]:
        # Until now: unless asked, the fleet is told of finished hours, and nothing would move.
        since = datetime.now(UTC) - timedelta(hours=24)
        return await self._get(f"/v1/analytics/fleet?limit=8&from={since:%Y-%m-%dT%H:%M:%SZ}")

    async def _get(self, path: str) -> dict[str, Any]:
        response = await self._api.get(path)
        if response.status_code in {401, 403}:
            raise FleetwattError(
                "the demo's service asks for keys by now: start the demo again, it makes itself one"
            )
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer


def _books(stats: dict[str, Any]) -> dict[str, int]:
    readings = stats["readings"].values()
    return {
        "stored": sum(kind["accepted"] for kind in readings),
        "duplicates": sum(kind["duplicates"] for kind in readings),
        "dead_letters": stats["deadLetters"]["total"],
    }


def _since(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    return {name: value - before[name] for name, value in now.items()}

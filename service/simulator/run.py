"""Runs a fleet in real time: paces its ticks, disturbs them, sends them, and says how it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from math import ceil
from time import monotonic
from typing import Final, Literal

import msgspec

from service.broker import BrokerAddress
from service.errors import FleetwattError
from service.readings import Reading
from service.simulator.fleet import Fleet, moments
from service.simulator.http import HttpSender
from service.simulator.mqtt import MqttSender
from service.simulator.network import Disturbances, Network
from service.simulator.progress import Progress
from service.simulator.sender import Sender

Via = Literal["mqtt", "http"]

_REPORT_S: Final = 1.0
# The readings of a tick go out over this share of the interval, as those of real devices would: their
# clocks do not strike together. The rest of the interval is there to catch up.
_SPREAD: Final = 0.5
_PACED_CHUNKS: Final = 100


class SimulationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate and where to send it. `meters`: as many as `devices` if None.

    `for_s`: how long (s); until cancelled if None. `after`: report only what is later than this moment, so
    that a live run continues a backfill. `api_key`: what the service asks for over HTTP, if it does.
    `drain_s`: how long to wait for the last acknowledgements.
    """

    devices: int
    meters: int | None = None
    interval_s: float = 60.0
    for_s: float | None = None
    after: datetime | None = None
    via: Via = "mqtt"
    broker: BrokerAddress | None = None
    http_url: str = "http://127.0.0.1:8080"
    api_key: str = ""
    seed: int = 0
    faulty_share: float = 0.03
    disturbances: Disturbances = Disturbances()
    connections: int = 4
    batch: int = 500
    drain_s: float = 30.0


async def simulate(options: SimulationOptions, report: Callable[[Progress], None]) -> Progress:
    """Run a fleet until its time is over or the task is cancelled, then send what is held and drain.

    `report` is called about once a second, and at the end, with the one Progress that is kept up to date.
    Cancelling ends the run early and is not an error: the Progress is returned as after any run; cancelling
    again gives up what is unanswered. Raises FleetwattError if the broker cannot be reached at the start or
    refuses us, ValueError for impossible options.
    """
    progress = Progress()
    fleet = Fleet(options.devices, options.meters or options.devices, options.seed, options.faulty_share)
    run = _Run(options, fleet, Network(options.seed, options.disturbances), progress)
    reporter = asyncio.create_task(_report_regularly(progress, report))
    try:
        async with _open_sender(options, progress) as sender:
            await _until_over(run, sender)
    finally:
        reporter.cancel()
        with suppress(asyncio.CancelledError):
            await reporter
    report(progress)
    return progress


async def _until_over(run: _Run, sender: Sender) -> None:
    task = asyncio.create_task(run.send_all(sender))
    try:
        # The run is told to stop, not cancelled: cancelled in the middle of a send, nobody would know what of
        # it was sent.
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=run.options.for_s)
        run.stop.set()
        await asyncio.wait({task}, timeout=run.options.drain_s)
    finally:
        finished = task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    if not finished:
        run.progress.problem = run.progress.problem or "not everything was acknowledged in time"


def _open_sender(options: SimulationOptions, progress: Progress) -> Sender:
    if options.via == "mqtt":
        if options.broker is None:
            raise FleetwattError("sending over MQTT needs a broker")
        return MqttSender(options.broker, progress, connections=options.connections)
    return HttpSender(
        options.http_url,
        progress,
        connections=options.connections,
        batch=options.batch,
        api_key=options.api_key,
    )


async def _report_regularly(progress: Progress, report: Callable[[Progress], None]) -> None:
    started = monotonic()
    try:
        while True:
            await asyncio.sleep(_REPORT_S)
            progress.elapsed_s = monotonic() - started
            report(progress)
    finally:
        progress.elapsed_s = monotonic() - started


class _Run:
    """One run of a fleet. Setting `stop` ends it in good order: it generates no more, and sends the rest."""

    def __init__(
        self, options: SimulationOptions, fleet: Fleet, network: Network, progress: Progress
    ) -> None:
        self.options = options
        self.progress = progress
        self.stop = asyncio.Event()
        self._fleet = fleet
        self._network = network

    async def send_all(self, sender: Sender) -> None:
        """Send tick after tick until told to stop, then what the network holds; wait for the answers."""
        for moment in self._ticks():
            # Worked out before it is due: a large fleet takes a while, and would hold up acknowledgements.
            readings = self._fleet.readings_at(moment, self.options.interval_s)
            if await self._stopped_within((moment - datetime.now(UTC)).total_seconds()):
                break
            self.progress.generated += len(readings)
            await self._send(sender, self._network.pass_on(readings))
        await self._send(sender, self._network.flush())
        await sender.drain(self.options.drain_s)

    def _ticks(self) -> Iterator[datetime]:
        """Give the moments to report, from the last one before now."""
        start = datetime.now(UTC) - timedelta(seconds=self.options.interval_s)
        if self.options.after is not None:
            start = max(start, self.options.after)
        return moments(start, datetime.max.replace(tzinfo=UTC), self.options.interval_s)

    async def _send(self, sender: Sender, readings: Sequence[Reading]) -> None:
        """Send readings spread over a part of the interval, or at once when it is time to stop."""
        self.progress.repeats = self._network.repeated
        if self.options.via == "mqtt":
            self.progress.duplicates = self.progress.repeats
        size = max(sender.batch, ceil(len(readings) / _PACED_CHUNKS))
        began, chunk_s = monotonic(), self.options.interval_s * _SPREAD * size / max(len(readings), 1)
        for number, start in enumerate(range(0, len(readings), size)):
            if not self.stop.is_set():
                await self._stopped_within(began + number * chunk_s - monotonic())
            await sender.send(readings[start : start + size])

    async def _stopped_within(self, wait_s: float) -> bool:
        """Wait so long, or until told to stop; tell whether it is time to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(wait_s, 0.0)):
                await self.stop.wait()
        return self.stop.is_set()

"""`fleetwatt simulate`: a fleet that charges, drives and sends readings, in real time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final

import msgspec
import rich_click as click
import uvloop
from rich.live import Live
from rich.table import Table

from service.broker import BrokerAddress
from service.cli.options import Duration, client_settings, data_dir_option, own_api_key, service_url
from service.settings import Settings
from service.simulator.fleet import LONGEST_INTERVAL_S
from service.simulator.network import Disturbances
from service.simulator.progress import Progress
from service.simulator.run import SimulationOptions, simulate

_PLAIN_LINE_S: Final = 5.0
_SHARE: Final = click.FloatRange(0, 1)


@click.command("simulate")
@click.option(
    "--devices", type=click.IntRange(min=1), default=100, show_default=True, help="Vehicles, and meters."
)
@click.option("--meters", type=click.IntRange(min=1), help="Meters, if not as many as vehicles.")
@click.option(
    "--interval", type=Duration(), default="60s", show_default=True, help="Time between two readings."
)
@click.option("--for", "duration", type=Duration(), help="How long.  [default: until Ctrl-C]")
@click.option(
    "--via", type=click.Choice(["mqtt", "http"]), default="mqtt", show_default=True, help="How to send."
)
@click.option(
    "--seed", default=0, show_default=True, help="All randomness; the same seed sends the same readings."
)
@click.option(
    "--faulty-share",
    type=_SHARE,
    default=0.03,
    show_default=True,
    help="Share of chargers that lose a quarter.",
)
@click.option(
    "--drift",
    type=Duration(),
    default="0s",
    show_default=True,
    help="Clocks are off by up to this, below 300 s.",
)
@click.option(
    "--outages",
    type=click.FloatRange(0, 0.9),
    default=0.0,
    show_default=True,
    help="Share of the time that a device has no connection; what it kept arrives in one burst.",
)
@click.option(
    "--outage-length", type=Duration(), default="2m", show_default=True, help="How long one outage lasts."
)
@click.option("--repeats", type=_SHARE, default=0.0, show_default=True, help="Share of readings sent twice.")
@click.option(
    "--shuffle", type=_SHARE, default=0.0, show_default=True, help="Share of readings sent out of order."
)
@click.option(
    "--connections", type=click.IntRange(1, 200), default=4, show_default=True, help="Connections at a time."
)
@click.option(
    "--batch",
    type=click.IntRange(1, 50_000),
    default=500,
    show_default=True,
    help="Readings in one HTTP request.",
)
@click.option(
    "--mqtt-url", help="Broker.  [default: FLEETWATT_MQTT_URL, or that of the running `fleetwatt up`]"
)
@click.option("--http-url", help="Service.  [default: that of the running `fleetwatt up`]")
@data_dir_option
def command(data_dir: Path | None, **given: Any) -> None:
    """Send the readings of a fleet that charges in sessions, as its meters and vehicles would.

    Run `fleetwatt seed N N --seed K` first, with the same numbers, so that the engine knows whose meter is
    whose. Over HTTP it sends the key in FLEETWATT_API_KEY, where the service asks for one. Ends with status 1
    if something that was sent was not acknowledged.
    """
    options = _options(client_settings(data_dir), given)
    with _shown() as report:
        progress = uvloop.run(simulate(options, report))
    click.echo(_summary(progress))
    if not progress.complete:
        sys.exit(1)


def _options(settings: Settings, given: dict[str, Any]) -> SimulationOptions:
    if not 0.01 <= given["interval"] <= LONGEST_INTERVAL_S:
        raise click.BadParameter("lies between 10ms and 1h", param_hint="--interval")
    if given["drift"] >= 300:
        raise click.BadParameter("lies below 300s: the service refuses more", param_hint="--drift")
    if given["outage_length"] <= 0:
        raise click.BadParameter("lies above 0s", param_hint="--outage-length")
    return SimulationOptions(
        devices=given["devices"],
        meters=given["meters"],
        interval_s=given["interval"],
        for_s=given["duration"],
        via=given["via"],
        broker=_broker(settings, given),
        http_url=given["http_url"] or service_url(settings),
        api_key=own_api_key(settings),
        seed=given["seed"],
        faulty_share=given["faulty_share"],
        disturbances=Disturbances(
            drift_s=given["drift"],
            outages=given["outages"],
            outage_s=given["outage_length"],
            repeats=given["repeats"],
            shuffle=given["shuffle"],
        ),
        connections=given["connections"],
        batch=given["batch"],
    )


def _broker(settings: Settings, given: dict[str, Any]) -> BrokerAddress | None:
    if given["via"] != "mqtt":
        return None
    mqtt_url = given["mqtt_url"] or settings.mqtt_url
    if not mqtt_url:
        raise click.UsageError("no broker: start `fleetwatt up`, set FLEETWATT_MQTT_URL or give --mqtt-url")
    return BrokerAddress.of(msgspec.structs.replace(settings, mqtt_url=mqtt_url))


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    """Show progress as a live table on a terminal, and as a line every few seconds elsewhere."""
    if sys.stdout.isatty():
        with Live(_table(Progress()), auto_refresh=False) as live:
            yield lambda progress: live.update(_table(progress), refresh=True)
        return
    last = monotonic()

    def print_now_and_then(progress: Progress) -> None:
        nonlocal last
        if monotonic() - last >= _PLAIN_LINE_S:
            last = monotonic()
            click.echo(_summary(progress))

    yield print_now_and_then


def _table(progress: Progress) -> Table:
    table = Table(title=f"{progress.elapsed_s:.0f} s", caption=progress.problem or None)
    for name in ("generated", "sent", "acknowledged", "in flight", "duplicates", "rejected", "a second"):
        table.add_column(name, justify="right")
    table.add_column("p50 / p95 / p99 ms", justify="right")
    table.add_row(
        f"{progress.generated:,}",
        f"{progress.sent:,}",
        f"{progress.acknowledged:,}",
        f"{progress.in_flight:,}",
        f"{progress.duplicates:,}",
        f"{progress.rejected:,}",
        f"{progress.rate:,.0f}",
        f"{progress.p50_ms:.1f} / {progress.p95_ms:.1f} / {progress.p99_ms:.1f}",
    )
    return table


def _summary(progress: Progress) -> str:
    line = (
        f"sent {progress.sent}, acknowledged {progress.acknowledged}, rejected {progress.rejected},"
        f" duplicates {progress.duplicates}, distinct {progress.distinct}, in flight {progress.in_flight},"
        f" {progress.rate:.0f} a second,"
        f" latency p50 {progress.p50_ms:.1f} p95 {progress.p95_ms:.1f} p99 {progress.p99_ms:.1f} ms,"
        f" {progress.elapsed_s:.1f} s"
    )
    return f"{line} ({progress.problem})" if progress.problem else line

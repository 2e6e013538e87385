"""`fleetwatt seed`: the devices of a simulated fleet and their charging sessions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import rich_click as click

from service import db
from service.cli.options import client_settings, data_dir_option
from service.errors import FleetwattError
from service.simulator.fleet import Fleet
from service.simulator.seed import seed as store_sessions


@click.command("seed")
@click.argument("vehicles", type=click.IntRange(min=1))
@click.argument("meters", type=click.IntRange(min=1))
@click.option(
    "--seed", default=0, show_default=True, help="The fleet; `fleetwatt simulate` must be given the same."
)
@click.option(
    "--days-back",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Sessions since so many days.",
)
@click.option(
    "--days-ahead",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Sessions for so many days.",
)
@data_dir_option
def command(
    *, vehicles: int, meters: int, seed: int, days_back: float, days_ahead: float, data_dir: Path | None
) -> None:
    """Create VEHICLES and METERS with the charging sessions that tie them together.

    Devices exist by their sessions: VH-0001 and on, METER-0001 and on. With fewer meters than vehicles they
    take turns. `fleetwatt simulate` with the same numbers and seed sends the readings. Sessions that are
    there already stay as they are, so seeding again, or further ahead, does no harm.
    """
    fleet = Fleet(vehicles, meters, seed)
    now = datetime.now(UTC)
    url = db.require_url(client_settings(data_dir))
    try:
        new, old = asyncio.run(
            store_sessions(url, fleet, now - timedelta(days=days_back), now + timedelta(days=days_ahead))
        )
    except psycopg.Error as error:
        raise FleetwattError(f"the sessions were not stored: {str(error).strip()}") from error
    click.echo(
        f"{vehicles} vehicles, {meters} meters: {new} sessions new,"
        f" {old} there already or at a meter that is taken"
    )

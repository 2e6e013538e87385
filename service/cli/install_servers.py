"""`fleetwatt install-servers`: fetch the embedded servers, or find them there."""

from __future__ import annotations

import rich_click as click

from service import settings
from service.cli.progress import install_with_progress


@click.command("install-servers")
@click.option("--path", "only_path", is_flag=True, help="Print the folder and nothing else.")
def command(only_path: bool) -> None:
    """Fetch PostgreSQL with TimescaleDB and Mosquitto into a private folder (`up` does this by itself)."""
    folder = install_with_progress(settings.load())
    click.echo(str(folder) if only_path else f"servers: {folder}")

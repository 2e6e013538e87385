"""`fleetwatt status`: what runs, and where."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table

from service import settings as settings_module
from service.cli.options import data_dir_option
from service.embedded import instance
from service.embedded.instance import Running
from service.embedded.processes import started_at
from service.secret import hide_password


@click.command("status")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON with all addresses.")
def command(data_dir: Path | None, as_json: bool) -> None:
    """Tell what runs and at which addresses; exit code 3 when nothing does."""
    settings = settings_module.load()
    running = instance.find_running(settings, data_dir)
    if running is None:
        folder = data_dir or instance.default_dirs(settings)["data"]
        if as_json:
            click.echo(msgspec.json.encode({"running": False, "dataDir": str(folder)}).decode())
        else:
            click.echo(f"nothing runs on {folder}: start it with `fleetwatt up`")
        sys.exit(3)
    print_running(running, as_json=as_json)


def print_running(running: Running, *, as_json: bool) -> None:
    """Print addresses: one line of JSON with passwords for programs, a table without them for people."""
    if as_json:
        addresses = {
            "http": running.http,
            "mqtt": running.mqtt,
            "database": running.database,
            "serviceDatabase": running.service_database,
            "biDatabase": running.bi_database,
            "dataDir": running.data_dir,
            "pid": running.pid,
            "running": True,
        }
        click.echo(msgspec.json.encode(addresses).decode())
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("API", f"{running.http}/api")
    table.add_row("MQTT", running.mqtt)
    table.add_row("database", f"{hide_password(running.database)}  (password: fleetwatt status --json)")
    table.add_row("data", running.data_dir)
    alive = [
        f"{process.name} {process.pid}"
        + ("" if started_at(process.pid) == process.started else " (restarting)")
        for process in running.processes
    ]
    table.add_row("processes", f"supervisor {running.pid}, " + ", ".join(alive))
    # A pipe has no width; nothing may be cut off there.
    Console(width=None if os.isatty(1) else 200, highlight=False).print(table)

"""`fleetwatt doctor`: what is wrong, why it matters, and the command that mends it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import rich_click as click
from rich.console import Console
from rich.text import Text

from service import settings as settings_module
from service.cli.options import client_settings, data_dir_option, json_option
from service.doctor.examine import Report, examine
from service.doctor.finding import Patient
from service.embedded import instance

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@click.command("doctor")
@data_dir_option
@click.option(
    "--broker-config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Mosquitto's configuration, if it is on this machine.  [default: that of the embedded broker]",
)
@json_option
def command(data_dir: Path | None, broker_config: Path | None, as_json: bool) -> None:
    """Look for what loses readings, or soon will; it changes nothing.

    Looks at the running `fleetwatt up` (or demo), or at the servers that settings name. Exit code 0: nothing
    to do; 1: warnings; 2: errors.
    """
    settings = client_settings(data_dir)
    running = instance.find_running(settings_module.load(), data_dir)
    if running is not None and settings.database_url != running.service_database:
        # Settings name another database: the disk of this one tells nothing of it.
        running = None
    if broker_config is None and running is not None and settings.mqtt_url == running.mqtt:
        broker_config = Path(running.data_dir) / "mosquitto/mosquitto.conf"
    report = examine(Patient(settings=settings, running=running, broker_config=broker_config))
    if as_json:
        told = {"facts": report.facts, "findings": report.findings, "exitCode": report.exit_code}
        click.echo(msgspec.json.encode(told).decode())
    else:
        _print(report)
    sys.exit(report.exit_code)


def _print(report: Report) -> None:
    # A pipe has no width; nothing may be cut off there.
    console = Console(highlight=False, soft_wrap=not os.isatty(1))
    for name, value in report.facts.items():
        console.print(Text(f"{name}: {value}", style="dim"))
    for finding in report.findings:
        console.print(
            Text.assemble(
                (f"{finding.severity:8}", _COLOURS[finding.severity]),
                (f"{finding.check}: ", "bold"),
                finding.what,
            )
        )
        console.print(Text(f"        {finding.why}", style="dim"))
        if finding.command:
            console.print(Text(f"        {finding.command}", style="green"), soft_wrap=True)
    if not any(finding.severity != "note" for finding in report.findings):
        console.print(Text("nothing to do", style="green"))

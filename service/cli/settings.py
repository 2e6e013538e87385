"""`fleetwatt settings`: what can be set, and what is."""

from __future__ import annotations

import os

import rich_click as click
from rich.console import Console
from rich.table import Table

from service import settings


@click.command("settings")
def command() -> None:
    """List every setting with its value, its default and what it does; passwords are hidden."""
    table = Table(box=None, pad_edge=False)
    for heading in ("variable", "value", "default", "meaning"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "variable")
    for name, value, default, help_line in settings.describe(settings.load()):
        table.add_row(name, value if value != default else "", default, help_line)
    # A pipe has no width; nothing may be cut off or folded there.
    Console(width=None if os.isatty(1) else 240).print(table)

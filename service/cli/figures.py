"""Pictures of figures for the terminal, which `demo` and `top` share: energy, worst vehicles, lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table


def panel(title: str, rows: Sequence[tuple[str, str]]) -> RenderableType:
    """Give names and their figures in a frame."""
    table = Table.grid(padding=(0, 3))
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    return Panel(table, title=title, title_align="left")


def energy(total: dict[str, Any]) -> list[tuple[str, str]]:
    """Give what was billed, delivered and lost, as rows of a panel."""
    ratio = percent(total["efficiencyRatio"])
    return [
        ("billed (AC)", f"{total['totalAcConsumedKwh']:,.1f} kWh"),
        ("delivered (DC)", f"{total['totalDcDeliveredKwh']:,.1f} kWh"),
        ("lost", f"{total['energyLossKwh']:,.1f} kWh"),
        ("fleet efficiency", f"[red]{ratio}[/red]" if total["belowThreshold"] else ratio),
    ]


def worst(title: str, vehicles: Sequence[dict[str, Any]], threshold: float) -> Table:
    """Give the least efficient vehicles, those first that were given first."""
    table = listing(title, "vehicle", ("AC kWh", "DC kWh", "DC/AC"), "")
    for row in vehicles:
        table.add_row(
            row["vehicleId"],
            f"{row['totalAcConsumedKwh']:.2f}",
            f"{row['totalDcDeliveredKwh']:.2f}",
            percent(row["efficiencyRatio"]),
            f"[red]below {100 * threshold:.0f} %[/red]" if row["belowThreshold"] else "",
        )
    return table


def listing(title: str, first: str, numbers: Sequence[str], last: str) -> Table:
    """Give an empty table: names on the left, numbers, and words on the right."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2))
    table.add_column(first)
    for heading in numbers:
        table.add_column(heading, justify="right")
    table.add_column(last)
    return table


def percent(ratio: float | None) -> str:
    """Write a ratio as a percentage."""
    return "-" if ratio is None else f"{100 * ratio:.1f} %"


def seconds(duration: float | None) -> str:
    """Write a duration in the unit that suits it."""
    if duration is None:
        return "-"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if duration >= 2 * length:
            return f"{duration / length:.0f} {unit}"
    return f"{max(duration, 0):.1f} s" if duration < 10 else f"{duration:.0f} s"

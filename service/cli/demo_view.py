"""What the demo shows: addresses, the flow of readings, the fleet's energy, the worst vehicles."""

from __future__ import annotations

from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from service.embedded.instance import Running
from service.simulator.progress import Progress


class DemoView:
    """Turns figures into a picture for the terminal, or into a plain line."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def render(
        self, sent: int, change: dict[str, int], live: Progress, stats: dict[str, Any], fleet: dict[str, Any]
    ) -> RenderableType:
        """Give the whole picture."""
        return Group(
            self._addresses(),
            Columns([_flow(sent, change, live, stats), _energy(fleet)], padding=(0, 2)),
            _worst(fleet),
            "[dim]Ctrl-C ends the demo; its data stay.[/dim]",
        )

    def line(self, sent: int, change: dict[str, int], live: Progress, fleet: dict[str, Any]) -> str:
        """Give one line, for output that is no terminal."""
        return (
            f"sent {sent}, stored {change['stored']}, duplicates {change['duplicates']}, "
            f"{live.rate:.0f}/s over MQTT, fleet efficiency {_percent(fleet['efficiencyRatio'])}"
        )

    def _addresses(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_row("API and docs", f"[link={self._running.http}/api]{self._running.http}/api[/link]")
        table.add_row(
            "MQTT", f"{self._running.mqtt}  topics telemetry/meter/{{id}}, telemetry/vehicle/{{id}}"
        )
        table.add_row("database", "address and password: fleetwatt status --json")
        return Panel(table, title="fleetwatt demo", title_align="left")


def _flow(sent: int, change: dict[str, int], live: Progress, stats: dict[str, Any]) -> RenderableType:
    lag = stats["ingest"]["sources"].get("mqtt", {}).get("lagMeanSeconds")
    table = _figures()
    table.add_row("readings sent", f"{sent:,}")
    table.add_row("readings stored", f"[green]{change['stored']:,}[/green]")
    table.add_row("duplicates found", f"{change['duplicates']:,}")
    table.add_row("dead letters", f"{change['dead_letters']:,}")
    table.add_row("MQTT rate", f"{live.rate:,.0f} /s")
    table.add_row(
        "sent to acknowledged", f"{live.p50_ms:.0f} / {live.p95_ms:.0f} / {live.p99_ms:.0f} ms  (p50 p95 p99)"
    )
    table.add_row("ingest lag", "-" if lag is None else f"{lag:.1f} s  (mean age when stored, MQTT)")
    return Panel(table, title="ingest", title_align="left")


def _energy(fleet: dict[str, Any]) -> RenderableType:
    table = _figures()
    table.add_row("charging now", f"{fleet['charging']:,}")
    table.add_row("billed (AC)", f"{fleet['totalAcConsumedKwh']:,.1f} kWh")
    table.add_row("delivered (DC)", f"{fleet['totalDcDeliveredKwh']:,.1f} kWh")
    table.add_row("lost", f"{fleet['energyLossKwh']:,.1f} kWh")
    table.add_row("fleet efficiency", _percent(fleet["efficiencyRatio"]))
    return Panel(table, title="energy, last 24 h", title_align="left")


def _worst(fleet: dict[str, Any]) -> RenderableType:
    table = Table(title="least efficient vehicles, last 24 h", title_justify="left", box=None, padding=(0, 2))
    for heading in ("vehicle", "AC kWh", "DC kWh", "DC/AC", ""):
        table.add_column(heading, justify="left" if heading in {"vehicle", ""} else "right")
    for row in fleet["vehicles"]:
        table.add_row(
            row["vehicleId"],
            f"{row['totalAcConsumedKwh']:.2f}",
            f"{row['totalDcDeliveredKwh']:.2f}",
            _percent(row["efficiencyRatio"]),
            "[red]below 85 %[/red]" if row["belowThreshold"] else "",
        )
    return table


def _figures() -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column()
    table.add_column(justify="right")
    return table


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f} %"

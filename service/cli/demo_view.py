"""What the demo shows: addresses, the flow of readings, the fleet's energy, the worst vehicles."""

from __future__ import annotations

from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from service.cli import figures
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
        energy = [("charging now", f"{fleet['charging']:,}"), *figures.energy(fleet)]
        flow = _flow(sent, change, live, stats)
        return Group(
            self._addresses(),
            Columns(
                [figures.panel("ingest", flow), figures.panel("energy, last 24 h", energy)], padding=(0, 2)
            ),
            figures.worst("least efficient vehicles, last 24 h", fleet["vehicles"], fleet["threshold"]),
            "[dim]Ctrl-C ends the demo; its data stay.[/dim]",
        )

    def line(self, sent: int, change: dict[str, int], live: Progress, fleet: dict[str, Any]) -> str:
        """Give one line, for output that is no terminal."""
        return (
            f"sent {sent}, stored {change['stored']}, duplicates {change['duplicates']}, "
            f"{live.rate:.0f}/s over MQTT, fleet efficiency {figures.percent(fleet['efficiencyRatio'])}"
        )

    def _addresses(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for name, path in (("dashboard", "/"), ("API and docs", "/api")):
            address = self._running.http + path
            table.add_row(name, f"[link={address}]{address}[/link]")
        table.add_row(
            "MQTT", f"{self._running.mqtt}  topics telemetry/meter/{{id}}, telemetry/vehicle/{{id}}"
        )
        table.add_row("database", "address and password: fleetwatt status --json")
        return Panel(table, title="fleetwatt demo", title_align="left")


def _flow(sent: int, change: dict[str, int], live: Progress, stats: dict[str, Any]) -> list[tuple[str, str]]:
    lag = stats["ingest"]["sources"].get("mqtt", {}).get("lagMeanSeconds")
    return [
        ("readings sent", f"{sent:,}"),
        ("readings stored", f"[green]{change['stored']:,}[/green]"),
        ("duplicates found", f"{change['duplicates']:,}"),
        ("dead letters", f"{change['dead_letters']:,}"),
        ("MQTT rate", f"{live.rate:,.0f} /s"),
        (
            "sent to acknowledged",
            f"{live.p50_ms:.0f} / {live.p95_ms:.0f} / {live.p99_ms:.0f} ms  (p50 p95 p99)",
        ),
        ("ingest lag", "-" if lag is None else f"{lag:.1f} s  (mean age when stored, MQTT)"),
    ]

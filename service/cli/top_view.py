"""What `top` shows of a service: whether it is well, the flow of readings, energy, the worst, open alerts."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from service import log
from service.cli import figures as parts
from service.cli.watch import Figures, Sight

_REASONS_SHOWN: Final = 3


class TopView:
    """Turns sights into pictures or lines; dead letters are counted from the first sight."""

    def __init__(self) -> None:
        self._letters_before: int | None = None

    def render(self, sight: Sight, worst: int, hint: str = "") -> RenderableType:
        """Give the whole picture, with at most so many of the worst vehicles."""
        if sight.figures is None:
            return _head(sight, hint)
        seen = sight.figures
        return Group(
            _head(sight, hint),
            Columns(
                [
                    parts.panel("ingest", _flow(sight, seen)),
                    parts.panel("energy, today", _energy(seen)),
                    parts.panel("engine", self._engine(sight, seen)),
                ],
                padding=(0, 2),
            ),
            parts.worst(
                "least efficient vehicles, last 24 finished hours",
                seen.worst[:worst],
                seen.overview["threshold"],
            ),
            *([_alerts(sight, seen)] if seen.alerts else []),
        )

    def line(self, sight: Sight) -> str:
        """Give one line, for output that is no terminal."""
        when = f"{sight.at:%H:%M:%S} UTC"
        if not sight.good or sight.figures is None:
            return f"{when} {_trouble(sight)}"
        seen = sight.figures
        ingest, today = seen.overview["ingest"], seen.overview["today"]
        said = [
            f"{ingest['readingsPerSecond']:,.0f}/s",
            f"lag {parts.seconds(ingest['lagMeanSeconds'])}",
            f"buffer {seen.buffer['readings']:,}",
            f"breaker {seen.ready['breaker']}",
            f"dead letters {seen.stats['deadLetters']['total']:,}",
            f"{seen.overview['vehicles']['charging']:,} charging",
            f"{today['totalAcConsumedKwh']:,.1f} kWh today at {parts.percent(today['efficiencyRatio'])}",
            f"{seen.overview['alerts']['open']:,} open alerts",
        ]
        return f"{when} ready, {', '.join(said)}"

    def _engine(self, sight: Sight, seen: Figures) -> list[tuple[str, str]]:
        letters = seen.stats["deadLetters"]
        if self._letters_before is None:
            self._letters_before = letters["total"]
        new = letters["total"] - self._letters_before
        reasons = sorted(letters["byCode"].items(), key=lambda item: -item[1])[:_REASONS_SHOWN]
        rollups = seen.stats["rollups"].values()
        failed = sum(each["failures"] for each in rollups)
        stored = sum(each["bytes"] for each in seen.stats["storage"].values())
        return [
            ("breaker", _good(seen.ready["breaker"], seen.ready["breaker"] == "closed")),
            ("buffer", f"{seen.buffer['readings']:,} of {seen.buffer['maxReadings']:,}"),
            *([("replica", seen.ready["replica"])] if "replica" in seen.ready else []),
            ("rollups until", _oldest([each["refreshedUntil"] for each in rollups])),
            ("refreshed", _ago(sight.at, [each["refreshedAt"] for each in rollups])),
            ("hours to refresh", f"{sum(each['staleHours'] for each in rollups):,}"),
            *([("failed refreshes", f"[red]{failed:,}[/red]")] if failed else []),
            ("dead letters", f"{letters['total']:,}" + (f"  [red]+{new:,}[/red]" if new > 0 else "")),
            *((f"  {escape(log.printable(code))}", f"{count:,}") for code, count in reasons),
            ("on disk", f"{stored / 1e6:,.0f} MB"),
        ]


def _head(sight: Sight, hint: str) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    version = f"  fleetwatt {sight.figures.ready['version']}" if sight.figures else ""
    table.add_row("service", escape(f"{sight.url}{version}"))
    state = "[green]ready[/green]" if sight.good else f"[bold red]{escape(_trouble(sight))}[/bold red]"
    table.add_row("state", state)
    if not sight.good and sight.seen_at:
        table.add_row("", f"[yellow]what follows is of {sight.seen_at:%H:%M:%S} UTC[/yellow]")
    return Panel(
        table, title=f"fleetwatt top, {sight.at:%H:%M:%S} UTC", title_align="left", subtitle=hint or None
    )


def _trouble(sight: Sight) -> str:
    since = sight.since or sight.at
    lasted = parts.seconds((sight.at - since).total_seconds())
    return f"not ready since {since:%H:%M:%S} UTC ({lasted}): {sight.trouble}"


def _flow(sight: Sight, seen: Figures) -> list[tuple[str, str]]:
    ingest = seen.overview["ingest"]
    counts = seen.stats["readings"].values()
    return [
        ("rate", f"[green]{ingest['readingsPerSecond']:,.1f} /s[/green]"),
        *(
            (f"  {escape(log.printable(name))}", f"{source['readingsPerSecond']:,.1f} /s")
            for name, source in seen.stats["ingest"]["sources"].items()
        ),
        ("mean lag when stored", parts.seconds(ingest["lagMeanSeconds"])),
        ("newest reading", _ago(sight.at, [seen.overview["newestReadingAt"]])),
        ("readings stored", f"{sum(each['accepted'] for each in counts):,}"),
        ("duplicates found", f"{sum(each['duplicates'] for each in counts):,}"),
        ("vehicles", _reporting(seen.overview["vehicles"])),
        ("meters", _reporting(seen.overview["meters"])),
    ]


def _energy(seen: Figures) -> list[tuple[str, str]]:
    overview = seen.overview
    opened = overview["alerts"]["open"]
    return [
        ("charging now", f"{overview['vehicles']['charging']:,}"),
        ("power (AC)", f"{overview['power']['acKw']:,.1f} kW"),
        *parts.energy(overview["today"]),
        ("open alerts", f"[red]{opened:,}[/red]" if opened else "0"),
    ]


def _alerts(sight: Sight, seen: Figures) -> Table:
    opened = seen.overview["alerts"]["open"]
    table = parts.listing(
        f"open alerts, the newest of {opened:,}", "vehicle", ("worst DC/AC", "open for"), "meter"
    )
    for alert in seen.alerts:
        ratio = parts.percent(alert["ratioWorst"]) if alert["kind"] == "low_efficiency" else "data fault"
        age = (sight.at - datetime.fromisoformat(alert["openedAt"])).total_seconds()
        table.add_row(alert["vehicleId"], ratio, parts.seconds(age), alert["meterId"])
    return table


def _reporting(devices: dict[str, Any]) -> str:
    return f"{devices['reporting']:,} of {devices['known']:,} report"


def _good(text: str, is_good: bool) -> str:
    return text if is_good else f"[bold red]{escape(text)}[/bold red]"


def _oldest(moments: list[str | None]) -> str:
    """Write the oldest of some moments; "-" as long as one has never been."""
    known = [datetime.fromisoformat(moment) for moment in moments if moment]
    return f"{min(known):%d %b %H:%M} UTC" if known and len(known) == len(moments) else "-"


def _ago(now: datetime, moments: list[str | None]) -> str:
    known = [datetime.fromisoformat(moment) for moment in moments if moment]
    return f"{parts.seconds((now - min(known)).total_seconds())} ago" if known else "-"

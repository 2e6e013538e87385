"""Results as tables: on the terminal, or as Markdown by `python -m bench.report FILE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table

# Figures of ingest that have columns of their own, or that stand beside one as its range.
_INGEST: Final = ("per_s", "of_copy", "of_own_copy", "of_one_by_one", "repeat_ratio")
_PARTS: Final = ("service", "postgres", "broker", "load")


class Sheet(NamedTuple):
    """A table: its title, the names of its columns, and its rows; all columns but the first are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def sheets(document: dict[str, Any]) -> Iterator[Sheet]:
    """Give the tables of a run."""
    results = document["results"]
    ingest = [result for result in results if "cpu_service_us" in result["figures"]]
    others = [result for result in results if result not in ingest and not result["failed"]]
    if ingest:
        yield Sheet(
            "Ingest: median (least-greatest); CPU in us a reading of service, PostgreSQL, broker and load",
            ("what", "readings/s", "of \\copy", "of \\copy into ours", "of one by one", "again", "CPU", "MB"),
            [_ingest_row(result) for result in ingest],
        )  # fmt: skip
    if others:
        figures = [
            (f"{result['scenario']}: {name.replace('_', ' ')}", number(value))
            for result in others
            for name, value in result["figures"].items()
        ]
        yield Sheet("More figures", ("what", "found"), figures)
    points = [(result, point) for result in results for point in result["points"]]
    if points:
        curves = [
            (
                result["scenario"],
                ", ".join(f"{name.replace('_', ' ')} {number(v)}" for name, v in point.items()),
            )
            for result, point in points
        ]
        yield Sheet("Curves", ("what", "points"), curves)
    targets = [
        (
            f"{result['scenario']}: {target['figure'].replace('_', ' ')}",
            target["wanted"],
            number(target["value"]),
            "yes" if target["reached"] else "NO",
        )
        for result in results
        for target in result["targets"]
    ]
    if targets:
        yield Sheet("Targets", ("what", "wanted", "found", "reached"), targets)
    failed = [(result["scenario"], result["failed"]) for result in results if result["failed"]]
    if failed:
        yield Sheet("FAILED: these figures would not be true", ("what", "why"), failed)


def _ingest_row(result: dict[str, Any]) -> tuple[str, ...]:
    figures = result["figures"]
    cpu = " ".join(f"{figures[f'cpu_{part}_us']:.1f}" for part in _PARTS)
    return (
        result["scenario"],
        *(_ranged(figures, name) for name in _INGEST),
        cpu,
        number(figures["peak_mb"]),
    )


def _ranged(figures: dict[str, Any], name: str) -> str:
    if name not in figures:
        return ""
    least, greatest = figures[f"{name}_min"], figures[f"{name}_max"]
    found = number(figures[name])
    return found if least == greatest else f"{found} ({number(least)}-{number(greatest)})"


def number(value: Any) -> str:
    """Write a figure for people."""
    if not isinstance(value, int | float):
        return str(value)
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def about(document: dict[str, Any]) -> str:
    """Say in a line what was measured where."""
    facts = document["about"]
    return (
        f"{facts['form']} form, commit {facts['commit']}, PostgreSQL {facts['postgresql']}, "
        f"TimescaleDB {facts['timescaledb']}, {facts['cores']} cores, {facts['memory_gb']} GB, "
        f"seed {facts['seed']}, {facts['date']}, took {facts['took_s']} s"
    )


def show(document: dict[str, Any], console: Console) -> None:
    """Print a run on the terminal."""
    for sheet in sheets(document):
        table = Table(title=sheet.title, title_justify="left")
        for place, column in enumerate(sheet.columns):
            table.add_column(column, justify="right" if place else "left")
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)
    console.print(about(document), soft_wrap=True)


def markdown(document: dict[str, Any]) -> str:
    """Give a run as Markdown."""
    parts = [f"{about(document)}.\n"]
    for sheet in sheets(document):
        lines = [
            f"### {sheet.title}\n",
            f"| {' | '.join(sheet.columns)} |",
            f"|---|{'---:|' * (len(sheet.columns) - 1)}",
            *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in sheet.rows),
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def main() -> None:
    """Print the results of a file as Markdown."""
    sys.stdout.write(markdown(json.loads(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()

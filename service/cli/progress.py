"""Progress of long work: on a terminal a bar, elsewhere plain lines or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from service.embedded import packages
from service.embedded.account import server_account
from service.settings import Settings

console = Console(stderr=True)


@contextmanager
def file_progress(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show how much of a file is read, which only a terminal gets to see; give what to tell it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)

        def show(bytes_read: int, size_bytes: int | None) -> None:
            progress.update(task, completed=bytes_read, total=size_bytes)

        yield show


@contextmanager
def export_progress(name: str) -> Iterator[Callable[[int, int, float], None]]:
    """Show how much is written, which only a terminal gets to see; give what to tell it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]:,} rows, {task.fields[megabytes]:,.1f} MB"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None, rows=0, megabytes=0.0)

        def show(rows: int, bytes_written: int, share: float) -> None:
            progress.update(task, completed=share, total=1.0, rows=rows, megabytes=bytes_written / 1e6)

        yield show


def install_with_progress(settings: Settings) -> Path:
    """Give the folder of the servers; show what is being done while they are fetched."""
    account = server_account(settings.run_as)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Embedded servers", total=None)
        last = ""

        def report(doing: str, share: float | None) -> None:
            nonlocal last
            progress.update(
                task,
                description=f"Embedded servers: {doing}",
                completed=100 * (share or 0),
                total=None if share is None else 100,
            )
            if doing != last and not console.is_terminal:
                console.print(f"Embedded servers: {doing} ...")
            last = doing

        return packages.install(account, report)

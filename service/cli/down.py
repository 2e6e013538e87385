"""`fleetwatt down`: end what `fleetwatt up` started."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import rich_click as click

from service import settings as settings_module
from service.cli.options import data_dir_option
from service.embedded import instance
from service.embedded.processes import started_at
from service.errors import EmbeddedError


@click.command("down")
@data_dir_option
def command(data_dir: Path | None) -> None:
    """Stop the engine: the service drains, then the broker and the database end. Data stay."""
    settings = settings_module.load()
    folders = [data_dir] if data_dir else list(instance.default_dirs(settings).values())
    held = [folder for folder in folders if instance.is_locked(folder)]
    if not held:
        click.echo(f"nothing runs on {folders[0]}")
        sys.exit(3)
    # What `status` shows; a demo beside it is another engine.
    folder, *others = held
    _stop(folder)
    click.echo(f"stopped; the data stay in {folder}")
    for other in others:
        click.echo(f"still running: {other} (fleetwatt down --data-dir {other})")


def _stop(folder: Path) -> None:
    """Ask the supervisor of a folder to end, and wait until it has let go of it."""
    deadline = time.monotonic() + 120
    asked = False
    while instance.is_locked(folder):
        running = instance.read_state(folder)
        # A starting engine holds the lock before it has written who it is: an old pid may be anybody's.
        if running is not None and not asked and started_at(running.pid) == running.started:
            os.kill(running.pid, signal.SIGTERM)
            asked = True
        if time.monotonic() > deadline:
            raise EmbeddedError(f"the engine on {folder} did not stop in two minutes: see {folder}/logs")
        time.sleep(0.05)

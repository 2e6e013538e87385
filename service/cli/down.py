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
    for folder in held:
        _stop(folder)
        click.echo(f"stopped; the data stay in {folder}")


def _stop(folder: Path) -> None:
    running = instance.read_state(folder)
    if running is None:
        raise EmbeddedError(f"a process holds {folder} but left no state: end it by hand")
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + 120
    while instance.is_locked(folder):
        if time.monotonic() > deadline:
            raise EmbeddedError(f"process {running.pid} did not stop in two minutes: see {folder}/logs")
        time.sleep(0.05)

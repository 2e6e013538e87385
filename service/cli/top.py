"""`fleetwatt top`: what a running service does, live in the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import rich_click as click
from rich.console import Console
from rich.live import Live

from service import lifecycle
from service import settings as settings_module
from service.cli.options import Duration, data_dir_option, own_api_key, service_url
from service.cli.top_view import TopView
from service.cli.watch import Sight, Watch
from service.embedded import instance

_WORST_MAX: Final = 20
_WORST_PLAIN: Final = 8
# What the picture takes beside the worst vehicles, with three panels side by side and some alerts.
_OTHER_LINES: Final = 26
_HINT: Final = "q or Ctrl-C ends this"
_WORST_LEAST: Final = 3
_PLAIN_WIDTH: Final = 120
_NOT_READY: Final = 3


@click.command("top")
@click.option("--url", help="The service.  [default: that of the running `fleetwatt up` or demo]")
@click.option("--every", type=Duration(), default=2.0, show_default=True, help="Time between two looks.")
@click.option("--tz", "zone", default="UTC", show_default=True, help="Time zone of today's energy.")
@click.option("--once", is_flag=True, help="Look once, print it, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each look.")
@data_dir_option
def command(
    url: str | None, every: float, zone: str, once: bool, as_json: bool, data_dir: Path | None
) -> None:
    """Watch a running service: rate, lag, rollups, dead letters, energy, worst vehicles, alerts.

    Over HTTP, with the key in FLEETWATT_API_KEY (scope read) where the service asks for one. Runs until q or
    Ctrl-C. The exit code is 3 if the service did not answer, or was not ready, when last looked at.
    """
    if not 0.1 <= every <= 3600:
        raise click.BadParameter("lies between 100ms and 1h", param_hint="--every")
    settings = settings_module.load()
    running = None if url else instance.find_running(settings, data_dir)
    address = url or (running.http if running else service_url(settings))
    watch = Watch(address, own_api_key(settings), zone=zone, worst=_WORST_MAX)
    with _shown(once=once, as_json=as_json) as show:
        last = asyncio.run(_run(watch, show, None if once else every))
    if last is not None and not last.good:
        sys.exit(_NOT_READY)


async def _run(watch: Watch, show: Callable[[Sight], None], every: float | None) -> Sight | None:
    """Look until somebody ends it, or once; give what was seen last."""
    stop = lifecycle.stop_requested()
    last = None
    async with watch:
        with _ends_at_q(stop):
            while not stop.is_set():
                look = asyncio.create_task(watch.look())
                await _wait(look, stop)
                if not look.done():
                    look.cancel()
                    break
                last = look.result()
                show(last)
                if every is None:
                    break
                await _wait(asyncio.create_task(asyncio.sleep(every)), stop)
    return last


async def _wait(task: asyncio.Task[Any], stop: asyncio.Event) -> None:
    """Wait until a task is done, or it is time to stop."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()


@contextlib.contextmanager
def _ends_at_q(stop: asyncio.Event) -> Iterator[None]:
    """End it at q, where keys can be read one by one: on a terminal."""
    keyboard = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
    if keyboard is None:
        yield
        return
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(keyboard)

    def read() -> None:
        pressed = os.read(keyboard, 64)
        if not pressed or b"q" in pressed.lower():
            loop.remove_reader(keyboard)
            stop.set()

    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, read)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _shown(*, once: bool, as_json: bool) -> Iterator[Callable[[Sight], None]]:
    """Give what to do with each sight: print it as JSON or as a picture; without a terminal as a line."""
    view = TopView()
    if as_json:
        yield lambda sight: click.echo(sight.told().decode())
    elif once:
        # A pipe has no width; nothing may be cut off there.
        console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)
        yield lambda sight: console.print(view.render(sight, _WORST_PLAIN))
    elif sys.stdout.isatty():
        console = Console(highlight=False)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            yield lambda sight: live.update(
                view.render(sight, max(_WORST_LEAST, console.height - _OTHER_LINES), _HINT), refresh=True
            )
    else:
        yield lambda sight: click.echo(view.line(sight))

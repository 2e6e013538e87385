"""`fleetwatt up`: the embedded servers and the service, in the foreground or detached."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import rich_click as click

from service import lifecycle, log
from service import settings as settings_module
from service.cli.options import data_dir_option
from service.cli.progress import console, install_with_progress
from service.cli.status import print_running
from service.embedded import instance, logs
from service.embedded.account import server_account
from service.embedded.stack import Ports, Stack
from service.errors import EmbeddedError
from service.settings import Settings

_port = click.IntRange(1, 65535)


@click.command("up")
@data_dir_option
@click.option(
    "--http-port", type=_port, help="Port of the HTTP service.  [default: the last one, else a free one]"
)
@click.option("--db-port", type=_port, help="Port of PostgreSQL.  [default: the last one, else a free one]")
@click.option("--mqtt-port", type=_port, help="Port of the broker.  [default: the last one, else a free one]")
@click.option("--detach", is_flag=True, help="Return once all is ready; `fleetwatt down` ends it.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON with all addresses once ready.")
def command(
    data_dir: Path | None,
    http_port: int | None,
    db_port: int | None,
    mqtt_port: int | None,
    detach: bool,
    as_json: bool,
) -> None:
    """Start PostgreSQL with TimescaleDB, Mosquitto, the HTTP service and a worker; Ctrl-C stops all of it."""
    settings = settings_module.load()
    log.configure(settings.log_level, settings.log_format)
    folder = instance.prepare_dir(
        data_dir or instance.default_dirs(settings)["data"], server_account(settings.run_as)
    )
    servers = install_with_progress(settings)
    ports = Ports(http=http_port, database=db_port, mqtt=mqtt_port)
    if detach:
        running = _detach(folder, ports)
        print_running(running, as_json=as_json)
        return
    with instance.locked(folder):
        asyncio.run(_foreground(settings, servers, folder, ports, as_json=as_json))


async def _foreground(
    settings: Settings, servers: Path, folder: Path, ports: Ports, *, as_json: bool
) -> None:
    stop = lifecycle.stop_requested()

    def say(what: str) -> None:
        console.print(f"[dim]{what}[/dim]", highlight=False, soft_wrap=True)

    starting = asyncio.create_task(_run(Stack(settings, servers, folder, ports, say), stop, as_json=as_json))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    await starting


async def _run(stack: Stack, stop: asyncio.Event, *, as_json: bool) -> None:
    async with stack:
        if not stop.is_set():
            print_running(stack.running, as_json=as_json)
            sys.stdout.flush()
            lifecycle.notify_ready()
            await stop.wait()
        console.print("[dim]stopping[/dim]")


def _detach(folder: Path, ports: Ports) -> instance.Running:
    """Start `up` as a process of its own session and wait until it is ready."""
    if instance.is_locked(folder):
        with instance.locked(folder):
            pass
    command_line = [sys.executable, "-m", "service", "up", "--data-dir", str(folder)]
    for option, port in (
        ("--http-port", ports.http),
        ("--db-port", ports.database),
        ("--mqtt-port", ports.mqtt),
    ):
        if port is not None:
            command_line += [option, str(port)]
    log_file = folder / "logs/up.log"
    # Before it is read from where it ends now.
    logs.rotate_all(log_file.parent)
    with log_file.open("ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            command_line,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        running = instance.read_state(folder)
        if running is not None and running.ready and running.pid == process.pid:
            for line in log_file.read_bytes()[begin:].decode(errors="replace").splitlines():
                # What becomes of old data is nothing to look for in a log.
                if line.startswith("lifecycle: "):
                    console.print(line, highlight=False, soft_wrap=True)
            return running
        if process.poll() is not None:
            words = log_file.read_bytes()[begin:].decode(errors="replace").strip().removeprefix("fleetwatt: ")
            raise EmbeddedError(words or f"`fleetwatt up` ended with code {process.returncode}")
        time.sleep(0.1)
    os.kill(process.pid, 15)
    raise EmbeddedError(f"the engine was not ready in time: see {log_file}")

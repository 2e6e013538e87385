"""A full engine of real processes, durable, each kept running by the supervisor of `fleetwatt up`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, Final, Self

import httpx
import psycopg
from psycopg import AsyncConnection

from service import migrations
from service.embedded import mosquitto, postgres
from service.embedded.processes import Child
from service.settings import PREFIX
from tests.support import servers
from tests.support.proxy import Proxy

GRACE_S: Final = 20.0
_READY_S: Final = 60.0
_SMALL_DISKS: Final = {"data": "320m", "wal": "160m"}
_READINGS: Final = """
create schema chaos
create view reading as
select meter_id as device_id, recorded_at, ingested_at from public.meter_reading
union all
select vehicle_id, recorded_at, ingested_at from public.vehicle_reading
"""
_PASSWORDS: Final = dict.fromkeys(("postgres", *postgres.ROLES), servers.PASSWORD)


class Process(Child):
    """A child that tells with what code it ended when it was asked to end, and what it has logged."""

    async def stop(self) -> None:
        """End the process as `fleetwatt up` does."""
        await super().stop()
        assert self._process is not None
        self.exit_code = self._process.returncode

    exit_code: int | None = None

    @property
    def logged(self) -> int:
        """How much has been logged so far, in bytes."""
        return self._log_file.stat().st_size

    def has_logged(self, event: str, since: int | None = None) -> bool:
        """Tell whether an event has been logged by the present process, or since so much was logged."""
        with self._log_file.open(errors="replace") as log_file:
            log_file.seek(self._log_start if since is None else since)
            return event in log_file.read()


class Engine:
    """PostgreSQL, Mosquitto, services and workers; between them proxies that faults can reach.

    One worker subscribes by itself, several share. Beside them `spares` services and as many workers are
    ready to be started. With `small_disk` the database lives on a small tmpfs and its write-ahead log on
    another one; such mounts must be this process's own.
    """

    def __init__(
        self,
        *,
        services: int = 2,
        workers: int = 2,
        spares: int = 0,
        small_disk: bool = False,
        proxied: bool = True,
    ) -> None:
        self._stack = AsyncExitStack()
        self._root = servers.apache_root()
        self._small_disk = small_disk
        self._proxied = proxied
        self._http_ports = [servers.free_port() for _ in range(services + spares)]
        self._workers = workers + spares
        self.spares = [
            name
            for number in range(spares)
            for name in (f"serve-{services + number}", f"worker-{workers + number}")
        ]
        self._start: dict[str, Callable[[], Process]] = {}
        self.db_port = servers.free_port()
        self.mqtt_port = servers.free_port()
        self.processes: dict[str, Process] = {}
        self.database_proxy = Proxy(self.db_port)
        self.broker_proxy = Proxy(self.mqtt_port)
        # Where the logs of all processes go at the end, if anywhere.
        self.logs: Path | None = None
        # The small disks, if there are any: where the data is, and where the write-ahead log is.
        self.disks: dict[str, Path] = {}
        self.folder = Path()

    @property
    def services(self) -> list[str]:
        """The names of the HTTP services."""
        return [name for name in self.processes if name.startswith("serve")]

    @property
    def workers(self) -> list[str]:
        """The names of the MQTT workers."""
        return [name for name in self.processes if name.startswith("worker")]

    @property
    def urls(self) -> list[str]:
        """The addresses of the HTTP services, those of spares last."""
        return [f"http://127.0.0.1:{port}" for port in self._http_ports]

    async def __aenter__(self) -> Self:
        """Start everything in order; return when all is ready."""
        try:
            await self._begin()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything: intake first, the database last."""
        for name in [*self.services, *self.workers]:
            await self.processes.pop(name).stop()
        for child in reversed(self.processes.values()):
            await child.stop()
        if self.logs:
            self.logs.mkdir(parents=True, exist_ok=True)
            for log_file in self.folder.glob("*.log"):
                shutil.copy(log_file, self.logs)
        await self._stack.aclose()

    async def _begin(self) -> None:
        self.folder = self._stack.enter_context(servers.scratch_dir())
        self._stack.enter_context(guarded(f"sleep 12; rm -rf {shlex.quote(str(self.folder))}", at_end=False))
        await self._stack.enter_async_context(self.database_proxy)
        await self._stack.enter_async_context(self.broker_proxy)
        await self._begin_servers()
        for number, port in enumerate(self._http_ports):
            self._prepare(f"serve-{number}", "serve", {"HTTP_PORT": str(port)})
        # Mosquitto 2.0 forgets shared subscriptions at a restart, and drops what comes before they are back.
        share = "chaos" if self._workers > 1 else ""
        for number in range(self._workers):
            self._prepare(
                f"worker-{number}", "worker", {"MQTT_CLIENT_ID": f"chaos-{number}", "MQTT_SHARE": share}
            )
        names = [name for name in self._start if name.startswith(("serve", "worker"))]
        first = [name for name in names if name not in self.spares]
        for name in first:
            await self.start(name)
        for name in first:
            await self.until_ready(name)

    async def _begin_servers(self) -> None:
        changed = {"shared_buffers": "256MB"}
        data = self.folder / "postgres"
        if self._small_disk:
            for name, size in _SMALL_DISKS.items():
                await asyncio.to_thread(self._mount, name, size)
            data = self.disks["data"] / "postgres"
            # Or it would outgrow its disk by itself.
            changed |= {"max_wal_size": "64MB", "min_wal_size": "32MB"}
        await asyncio.to_thread(postgres.initialise, self._root, data, servers.PASSWORD, servers.ACCOUNT)
        if self._small_disk:
            await asyncio.to_thread(_move, data / "pg_wal", self.disks["wal"] / "pg_wal")
        command = postgres.command_line(self._root, data, self.db_port, changed)
        self._start["postgres"] = lambda: Process(
            "postgres",
            command,
            self.folder / "postgres.log",
            stop_signal=signal.SIGINT,
            account=servers.ACCOUNT,
            grace_s=60.0,
        )
        broker = mosquitto.command_line(
            self._root, self.folder / "mosquitto", self.mqtt_port, servers.ACCOUNT
        )
        self._start["mosquitto"] = lambda: Process(
            "mosquitto", broker, self.folder / "mosquitto.log", account=servers.ACCOUNT
        )
        await self.start("postgres")
        await self.start("mosquitto")
        superuser = postgres.url(self.db_port, "postgres", servers.PASSWORD, "postgres")
        await self.processes["postgres"].wait_until(lambda: postgres.answers(superuser), _READY_S, tries=4)
        await postgres.prepare(self.db_port, _PASSWORDS)
        owner = postgres.url(self.db_port, "fleetwatt_owner", servers.PASSWORD)
        await asyncio.to_thread(migrations.migrate, owner)
        async with self.admin() as connection:
            await connection.execute(_READINGS)

    def _mount(self, name: str, size: str) -> None:
        disk = self.disks[name] = self.folder / name
        disk.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0711", "tmpfs", str(disk)], check=True
        )
        self._stack.callback(subprocess.run, ["umount", "-l", str(disk)], check=True)

    def _prepare(self, name: str, command: str, changed: dict[str, str]) -> None:
        broker = self.broker_proxy.port if self._proxied else self.mqtt_port
        values = {
            **self._databases(),
            "MQTT_URL": mosquitto.url(broker),
            "LOG_FORMAT": "json",
            **changed,
        }
        environment = {PREFIX + key: value for key, value in values.items()}
        self._start[name] = lambda: Process(
            name,
            [sys.executable, "-m", "service", command],
            self.folder / f"{name}.log",
            environment=environment,
            grace_s=GRACE_S,
        )

    def _databases(self) -> dict[str, str]:
        """Give the settings that tell services and workers where the database is."""
        port = self.database_proxy.port if self._proxied else self.db_port
        return {"DATABASE_URL": postgres.url(port, "fleetwatt_service", servers.PASSWORD)}

    async def start(self, name: str) -> None:
        """Start a process that does not run, under supervision."""
        self.processes[name] = self._start[name]()
        await self.processes[name].start()

    async def stop(self, name: str) -> int | None:
        """End a process with the signal that ends it well; give its exit code."""
        await self.processes[name].stop()
        return self.processes[name].exit_code

    async def kill(self, name: str) -> None:
        """Kill (-9) a process, and do not start it again."""
        self.processes[name].stop_signal = signal.SIGKILL
        await self.processes[name].stop()

    async def until_ready(self, name: str) -> None:
        """Wait until a service answers that it is ready, or a worker has subscribed."""
        child = self.processes[name]
        if name in self.workers:
            await child.wait_until(lambda: child.has_logged('"broker_connected"'), _READY_S, tries=4)
        else:
            url = self.urls[self.services.index(name)]
            await child.wait_until(lambda: _is_ready(url), _READY_S, tries=4)

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Give a connection of the superuser, past the proxy."""
        connection = await AsyncConnection.connect(
            postgres.url(self.db_port, "postgres", servers.PASSWORD),
            autocommit=True,
            connect_timeout=5,
            application_name="chaos",
        )
        try:
            yield connection
        finally:
            with contextlib.suppress(psycopg.Error):
                await connection.close()

    def pid(self, name: str) -> int:
        """Give the pid of a process's supervisor or only process."""
        pid = self.processes[name].pid
        assert pid is not None
        return pid

    def server_pid(self, name: str) -> int:
        """Give the pid of the process that answers requests for a service: a child of the one we started."""
        for pid in descendants(self.pid(name)):
            if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise ProcessLookupError(f"{name} has no process that serves")


def _move(folder: Path, place: Path) -> None:
    """Move a folder with its owner to another file system, and leave a link."""
    subprocess.run(["cp", "-a", str(folder), str(place)], check=True)
    shutil.rmtree(folder)
    folder.symlink_to(place)


def descendants(parent: int) -> list[int]:
    """Give the pids of a process's children, and of theirs."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(fields[1])
    found, new = [], [parent]
    while new:
        new = [pid for pid, above in parents.items() if above in new]
        found += new
    return found


@contextlib.contextmanager
def guarded(command: str, *, at_end: bool = True) -> Iterator[None]:
    """Have a shell run `command` if this process dies within, even of kill -9; and at the end if `at_end`."""
    with ExitStack() as stack:
        guard = stack.enter_context(
            subprocess.Popen(
                ["sh", "-c", f'read -r word; [ "$word" ] || {{ {command}; }}'],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env={"PATH": os.environ["PATH"]},
            )
        )
        assert guard.stdin is not None
        try:
            yield
        finally:
            if not at_end:
                guard.stdin.write(b"done\n")
            guard.stdin.close()
            guard.wait(10)


async def _is_ready(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
        try:
            return (await client.get(f"{url}/health/ready")).is_success
        except httpx.HTTPError:
            return False

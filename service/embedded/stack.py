"""The whole engine on one machine: PostgreSQL, Mosquitto, migrations, the HTTP service and a worker."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import httpx
import msgspec

from service import migrations
from service import settings as settings_module
from service.embedded import instance, logs, mosquitto, postgres
from service.embedded.account import server_account
from service.embedded.instance import Process, Running
from service.embedded.notify import Listener
from service.embedded.processes import Child, started_at
from service.errors import EmbeddedError
from service.maintenance import retention
from service.settings import PREFIX, Settings


class Ports(msgspec.Struct, frozen=True):
    """Ports that the user asked for; None leaves the choice to fleetwatt."""

    http: int | None = None
    database: int | None = None
    mqtt: int | None = None


class Stack:
    """Starts everything in order on entry and stops it in the opposite order on exit.

    Call it under the folder's lock. `say` is told each step.
    """

    def __init__(
        self, settings: Settings, servers: Path, folder: Path, ports: Ports, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._servers = servers
        self._folder = folder
        self._asked = ports
        self._say = say
        self._children: list[Child] = []
        self._account = server_account(settings.run_as)
        self._running: Running | None = None
        self._rotating: asyncio.Task[NoReturn] | None = None

    @property
    def running(self) -> Running:
        """Where everything is."""
        if self._running is None:
            raise EmbeddedError("the engine has not been started")
        return self._running

    async def __aenter__(self) -> Self:
        """Start all; what was started is stopped again when a later step fails."""
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all: intake first, the database last."""
        await self._stop()

    async def _start(self) -> None:
        # What is wrong with the settings is told before anything starts.
        retention.Rules.of(self._settings)
        before = instance.read_state(self._folder)
        for name in instance.end_leftovers(before):
            self._say(f"ended {name}, left over from a run that was killed")
        self._running = self._plan(before)
        self._note()
        self._rotating = asyncio.create_task(logs.keep_small(self._folder / "logs"))
        await self._start_database()
        await self._start_broker()
        await self._start_service()
        self._note(ready=True)

    def _plan(self, before: Running | None) -> Running:
        http = instance.choose_port(self._asked.http, before.http_port if before else None, "HTTP")
        database = instance.choose_port(
            self._asked.database, before.db_port if before else None, "the database"
        )
        broker = instance.choose_port(self._asked.mqtt, before.mqtt_port if before else None, "MQTT")
        words = instance.passwords(self._folder)
        return Running(
            pid=os.getpid(),
            started=started_at(os.getpid()) or 0,
            ready=False,
            data_dir=str(self._folder),
            http=f"http://127.0.0.1:{http}",
            mqtt=mosquitto.url(broker),
            database=postgres.url(database, "fleetwatt_owner", words["fleetwatt_owner"]),
            service_database=postgres.url(database, "fleetwatt_service", words["fleetwatt_service"]),
            bi_database=postgres.url(database, "fleetwatt_bi", words["fleetwatt_bi"]),
            http_port=http,
            mqtt_port=broker,
            db_port=database,
            processes=[],
            rules=retention.Rules.of(self._settings)._asdict(),
        )

    def _note(self, *, ready: bool = False) -> None:
        """Write the state file, so that whoever comes next finds (or cleans up after) these processes."""
        processes = [
            Process(child.name, child.pid, started, child.stop_signal)
            for child in self._children
            if child.pid is not None and (started := started_at(child.pid)) is not None
        ]
        self._running = msgspec.structs.replace(self.running, ready=ready, processes=processes)
        instance.write_state(self._folder, self._running)

    async def _launch(self, child: Child) -> Child:
        child.on_spawn = lambda: self._note(ready=self.running.ready)
        self._children.append(child)
        await child.start()
        return child

    async def _start_database(self) -> None:
        self._say("starting PostgreSQL with TimescaleDB")
        words = instance.passwords(self._folder)
        data = self._folder / "postgres"
        log_file = self._folder / "logs/postgres.log"
        await asyncio.to_thread(postgres.initialise, self._servers, data, words["postgres"], self._account)
        child = await self._launch(
            postgres.server(self._servers, data, self.running.db_port, log_file, self._account)
        )
        superuser = postgres.url(self.running.db_port, "postgres", words["postgres"], "postgres")
        # After a kill -9 the old server's last processes may hold its shared memory for a moment.
        await child.wait_until(lambda: postgres.answers(superuser), timeout_s=120, tries=4)
        await postgres.prepare(self.running.db_port, words)
        self._say("migrating the database")
        await asyncio.to_thread(migrations.migrate, self.running.database)
        rules = await asyncio.to_thread(
            retention.apply,
            self.running.database,
            self._settings,
            lambda told: self._say(f"lifecycle: {told}"),
        )
        if rules is not None:
            self._say(f"lifecycle: {rules}")

    async def _start_broker(self) -> None:
        self._say("starting Mosquitto")
        log_file = self._folder / "logs/mosquitto.log"
        port = self.running.mqtt_port
        child = await self._launch(
            mosquitto.server(self._servers, self._folder / "mosquitto", port, log_file, self._account)
        )
        await child.wait_until(lambda: _accepts(port), timeout_s=20)

    async def _start_service(self) -> None:
        self._say("starting the HTTP service and the MQTT worker")
        environment = {
            # What the user set for servers of his own, also as files, is not meant here.
            **{f"{PREFIX}{name}_FILE": "" for name in ("DATABASE_URL", "MIGRATE_DATABASE_URL", "MQTT_URL")},
            **dict.fromkeys((f"{PREFIX}{name.upper()}" for name in settings_module.BROKER_CREDENTIALS), ""),
            f"{PREFIX}MQTT_PASSWORD_FILE": "",
            PREFIX + "DATABASE_URL": self.running.service_database,
            PREFIX + "MIGRATE_DATABASE_URL": "",
            PREFIX + "MQTT_URL": self.running.mqtt,
            # It is the only worker.
            PREFIX + "MQTT_SHARE": "",
            PREFIX + "HTTP_HOST": "127.0.0.1",
            # On loopback, and everything beside it expects plain HTTP.
            PREFIX + "HTTP_TLS_CERT_FILE": "",
            PREFIX + "HTTP_TLS_KEY_FILE": "",
            PREFIX + "HTTP_PORT": str(self.running.http_port),
        }
        python = [sys.executable, "-m", "service"]
        with Listener() as listener:
            worker = await self._launch(
                Child(
                    "worker",
                    [*python, "worker"],
                    self._folder / "logs/worker.log",
                    environment={**environment, "NOTIFY_SOCKET": listener.address},
                )
            )
            serve = await self._launch(
                Child("serve", [*python, "serve"], self._folder / "logs/serve.log", environment=environment)
            )
            await worker.wait_until(listener.is_ready, timeout_s=30)
        await serve.wait_until(lambda: _healthy(self.running.http), timeout_s=30)

    async def _stop(self) -> None:
        began = time.monotonic()
        # The service and the worker drain side by side; only then do broker and database go.
        intake = [child for child in self._children if child.name in {"serve", "worker"}]
        await asyncio.gather(*(child.stop() for child in intake))
        for child in reversed(self._children):
            if child not in intake:
                await child.stop()
        if self._rotating is not None:
            self._rotating.cancel()
        if self._running is not None:
            self._children.clear()
            self._note()
            self._say(f"stopped in {time.monotonic() - began:.1f} s")


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _healthy(address: str) -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
        try:
            return (await client.get(f"{address}/health/ready")).is_success
        except httpx.HTTPError:
            return False

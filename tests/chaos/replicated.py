"""A full engine whose primary has a synchronous replica, which can take over and gets a new one then."""

from __future__ import annotations

import asyncio
import signal

import psycopg

from service.embedded import postgres
from tests.chaos.engine import Engine, Process
from tests.support import replica, servers


class ReplicatedEngine(Engine):
    """Services and workers know both servers, and take the one for the primary that takes writes.

    `primary` and `replica` name the processes; `replica` is None while there is none.
    """

    def __init__(self, *, services: int = 2, workers: int = 2) -> None:
        super().__init__(services=services, workers=workers, proxied=False)
        self._ports = [self.db_port, servers.free_port()]
        self._number = 0
        self.primary = "postgres"
        self.replica: str | None = None

    async def _begin_servers(self) -> None:
        await super()._begin_servers()
        await self.add_replica()

    def _databases(self) -> dict[str, str]:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        known = postgres.url(self._ports[0], "fleetwatt_service", servers.PASSWORD)
        known = known.replace(f"127.0.0.1:{self._ports[0]}", hosts)
        return {
            "DATABASE_URL": psycopg.conninfo.make_conninfo(known, target_session_attrs="read-write"),
            "READ_DATABASE_URL": psycopg.conninfo.make_conninfo(known, target_session_attrs="prefer-standby"),
        }

    @property
    def _other_port(self) -> int:
        return self._ports[1] if self.db_port == self._ports[0] else self._ports[0]

    async def add_replica(self) -> None:
        """Make a replica of the primary while it is in use; return once commits wait for it."""
        self._number += 1
        name = f"postgres-{self._number}"
        data, port = self.folder / name, self._other_port
        await asyncio.to_thread(replica.allow, self.db_port)
        await asyncio.to_thread(replica.base_backup, self._root, self.db_port, data, name)
        command = postgres.command_line(self._root, data, port, {"shared_buffers": "256MB"})
        self._start[name] = lambda: Process(
            "postgres",
            command,
            self.folder / f"{name}.log",
            stop_signal=signal.SIGINT,
            account=servers.ACCOUNT,
            grace_s=60.0,
        )
        await self.start(name)
        await asyncio.to_thread(replica.wait_for, self.db_port, name, synchronous=True)
        self.replica = name

    async def kill_primary(self) -> None:
        """Kill (-9) the primary; it does not come back."""
        await self.kill(self.primary)
        del self.processes[self.primary]

    async def promote(self) -> None:
        """Make the replica the primary; commits wait for nobody from then on."""
        assert self.replica is not None
        await asyncio.to_thread(replica.promote, self._root, self.folder / self.replica)
        self.primary, self.replica = self.replica, None
        self.db_port = self._other_port

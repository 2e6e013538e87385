"""What a benchmark runs against: a durable PostgreSQL, a broker, and fleetwatt's own processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import psycopg

from tests.support import servers
from tests.support.servers import Postgres

# As `fleetwatt up` runs it: nothing that is acknowledged is lost. The tests' server is faster, and forgets.
_DURABLE: Final = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "2GB",
    "max_connections": "100",
    "max_wal_size": "4GB",
}
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_START_S: Final = 30
_PROGRESS: Final = "select coalesce(sum(accepted + duplicates), 0)::bigint from ingest_minute"
_ROWS: Final = "select (select count(*) from meter_reading) + (select count(*) from vehicle_reading)"


class Database(NamedTuple):
    """A fresh database: the addresses of its owner and of the service, and an owner's connection."""

    owner_url: str
    service_url: str
    owner: psycopg.Connection[Any]

    def handled(self) -> int:
        """Count the readings whose commit is through, repeats included; it reads a few rows."""
        [(count,)] = self.owner.execute(_PROGRESS).fetchall()
        return int(count)

    def rows(self) -> int:
        """Count the stored readings, all of them."""
        [(count,)] = self.owner.execute(_ROWS).fetchall()
        return int(count)


class Usage(NamedTuple):
    """What a process and its children have used: CPU seconds, and at most so many bytes of memory."""

    cpu_s: float
    peak_bytes: int


class Engine:
    """The servers of one run."""

    def __init__(self, postgres: Postgres, broker_port: int) -> None:
        self.postgres = postgres
        self.broker_port = broker_port
        self.psql = str(postgres.root / "usr/lib/postgresql/17/bin/psql")

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Give a fresh, migrated database."""
        with self.postgres.database() as name:
            owner_url = self.postgres.url("fleetwatt_owner", name)
            with psycopg.connect(owner_url, autocommit=True) as owner:
                yield Database(owner_url, self.postgres.url("fleetwatt_service", name), owner)

    def settle(self) -> None:
        """Write out what waits to be, so that no measurement pays for what came before it."""
        with self.postgres.admin() as connection:
            connection.execute("checkpoint")

    @contextmanager
    def serving(self, database: Database, **changed: object) -> Iterator[tuple[int, int]]:
        """Run `fleetwatt serve`; give its port and its process id."""
        port = servers.free_port()
        variables = _variables(database, HTTP_PORT=port, **changed)
        with _running("serve", variables) as process, httpx.Client() as client:
            until = time.monotonic() + _START_S
            while time.monotonic() < until:
                with contextlib.suppress(httpx.HTTPError):
                    if client.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                        break
                time.sleep(0.05)
            yield port, process.pid

    @contextmanager
    def working(self, database: Database, number: int = 0, **changed: object) -> Iterator[int]:
        """Run `fleetwatt worker` until it has subscribed; give its process id."""
        with (
            tempfile.TemporaryDirectory() as folder,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
        ):
            ready.bind(f"{folder}/ready")
            ready.settimeout(_START_S)
            variables = _variables(
                database,
                MQTT_URL=f"mqtt://127.0.0.1:{self.broker_port}",
                MQTT_CLIENT_ID=f"fleetwatt-{number}",
                # The session ends with the process: the next benchmark must not get what was meant for it.
                MQTT_SESSION_EXPIRY_S=0,
                **changed,
            )
            with _running("worker", {**variables, "NOTIFY_SOCKET": f"{folder}/ready"}) as process:
                ready.recv(100)
                yield process.pid


@contextmanager
def running(edition: str) -> Iterator[Engine]:
    """Run the servers of an edition, `apache` or `community`."""
    root = servers.apache_root() if edition == "apache" else servers.community_root()
    if root is None:
        sys.exit("no TimescaleDB Community here: FLEETWATT_TEST_PG_BIN can name the bin folder of one")
    with (
        servers.running_postgres(root, _DURABLE) as postgres,
        servers.running_mosquitto(servers.apache_root()) as port,
    ):
        yield Engine(postgres, port)


def _variables(database: Database, **changed: object) -> dict[str, str]:
    chosen = {"DATABASE_URL": database.service_url, "LOG_LEVEL": "warning", **changed}
    return {f"FLEETWATT_{name}": str(value) for name, value in chosen.items()}


@contextmanager
def _running(command: str, variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLEETWATT_")}
    process = subprocess.Popen([sys.executable, "-m", "service", command], env={**inherited, **variables})
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Load:
    """A process that sends; see bench/load.py."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._say(json.dumps(spec))
        if self._listen() != "ready":
            raise RuntimeError("the load did not start")

    def start(self) -> None:
        """Let it send."""
        self._say("go")

    def tell(self, committed: int) -> None:
        """Tell it how many readings are committed."""
        with contextlib.suppress(BrokenPipeError):
            self._say(str(committed))

    @property
    def running(self) -> bool:
        """Tell whether it has not ended yet."""
        return self._process.poll() is None

    def result(self) -> dict[str, Any]:
        """Wait until it has sent everything; give what it says."""
        found: dict[str, Any] = json.loads(self._listen())
        # It ends once its standard input does.
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        return found

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _listen(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def usage(process_id: int) -> Usage:
    """Give what a process and all below it have used until now."""
    children: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
            used[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    tree = [process_id]
    for each in tree:
        tree += children.get(each, [])
    return Usage(sum(used.get(each, 0) for each in tree), max(_peak_bytes(each) for each in tree))


def _peak_bytes(process_id: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def until(condition: Callable[[], bool], *, patience_s: float = 60.0, every_s: float = 0.01) -> None:
    """Wait until something holds. Raises TimeoutError when it does not come about."""
    end = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("what was sent has not been stored")
        time.sleep(every_s)

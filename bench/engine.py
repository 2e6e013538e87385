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
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import httpx
import psycopg

from bench import fleet
from service.embedded import mosquitto
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
    "min_wal_size": "2GB",
    # A vacuum of some tables, of whoever was measured before, must not fall into seconds that are measured.
    "autovacuum_naptime": "1h",
}
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_START_S: Final = 30
_PROGRESS: Final = "select coalesce(sum(accepted + duplicates), 0)::bigint from ingest_minute"
_COUNTS: Final = """
    select coalesce(sum(accepted), 0)::bigint, coalesce(sum(duplicates), 0)::bigint,
        coalesce(sum(conflicts), 0)::bigint + (select count(*) from dead_letter)
    from ingest_minute
"""
_ROWS: Final = """
    select
        (select count(*) from meter_reading where recorded_at >= %(since)s)
        + (select count(*) from vehicle_reading where recorded_at >= %(since)s)
"""
_SETTLE: Final = "select apply_settings(array['rollup_settle_s'], array[%s]::double precision[])"
_EVER: Final = datetime.min.replace(tzinfo=UTC)


class Counts(NamedTuple):
    """Readings by what has become of them."""

    accepted: int
    duplicates: int
    refused: int


class Database(NamedTuple):
    """A fresh database: the addresses of its owner and of the service, and an owner's connection."""

    owner_url: str
    service_url: str
    owner: psycopg.Connection[Any]

    def handled(self) -> int:
        """Count the readings whose commit is through, repeats included; it reads a few rows."""
        [(count,)] = self.owner.execute(_PROGRESS).fetchall()
        return int(count)

    def counts(self) -> Counts:
        """Count what has become of the readings that were sent."""
        [row] = self.owner.execute(_COUNTS).fetchall()
        return Counts(*row)

    def rows(self, since: datetime = _EVER) -> int:
        """Count the stored readings, all of them unless told since when."""
        [(count,)] = self.owner.execute(_ROWS, {"since": since}).fetchall()
        return int(count)

    def settle_after(self, seconds: float) -> None:
        """Have rollups leave an hour alone for so long after its end, before any service says so."""
        self.owner.execute(_SETTLE, (seconds,))


class Usage(NamedTuple):
    """What a process and its children have used: CPU seconds, and at most so many bytes of memory."""

    cpu_s: float
    peak_bytes: int


class Engine:
    """The servers of one run, what they are called, their process ids, and a folder for what is sent."""

    def __init__(self, edition: str, postgres: Postgres, broker: tuple[int, int], folder: Path) -> None:
        self.edition = edition
        self.postgres = postgres
        self.broker_port, self.broker_pid = broker
        self.folder = folder
        self.psql = str(postgres.root / "usr/lib/postgresql/17/bin/psql")
        # One for the whole run: the same reading has the same time, whoever makes it.
        self.begin = fleet.recent()
        with postgres.admin() as connection:
            [(pid,)] = connection.execute("select pg_read_file('postmaster.pid')").fetchall()
        self.postgres_pid = int(str(pid).split()[0])

    def versions(self) -> dict[str, str]:
        """Name the versions of what is measured against."""
        statement = (
            "select current_setting('server_version'), extversion from pg_extension where extname = %s"
        )
        with self.database() as database:
            [(server, extension)] = database.owner.execute(statement, ("timescaledb",)).fetchall()
        return {"postgresql": server.split()[0], "timescaledb": f"{extension} ({self.edition})"}

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

    def serving(self, database: Database, **changed: object) -> AbstractContextManager[tuple[int, int]]:
        """Run `fleetwatt serve`; give its port and its process id."""
        return serving(database.service_url, **changed)

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
                database.service_url,
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
        _broker() as broker,
        tempfile.TemporaryDirectory(prefix="fleetwatt-bench-") as folder,
    ):
        yield Engine(edition, postgres, broker, Path(folder))


@contextmanager
def serving(url: str, **changed: object) -> Iterator[tuple[int, int]]:
    """Run `fleetwatt serve` on a database; give its port and its process id."""
    port = servers.free_port()
    with _running("serve", _variables(url, HTTP_PORT=port, **changed)) as process, httpx.Client() as client:
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                    break
            time.sleep(0.05)
        yield port, process.pid


@contextmanager
def _broker() -> Iterator[tuple[int, int]]:
    with servers.scratch_dir() as folder:
        port, log_file = servers.free_port(), folder / "mosquitto.log"
        command = mosquitto.command_line(servers.apache_root(), folder / "mosquitto", port, servers.ACCOUNT)
        with servers.process(command, log_file, signal.SIGTERM) as process:
            servers.wait_for_port(port, log_file)
            yield port, process.pid


def _variables(url: str, **changed: object) -> dict[str, str]:
    chosen = {"DATABASE_URL": url, "LOG_LEVEL": "warning", **changed}
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
            raise RuntimeError("the load has not started; it says why above")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it, also where something else has failed."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

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
        said = self._listen()
        # It ends once its standard input does, if it has not; what it was told last may not have reached it.
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if status := self._process.wait(10):
            raise RuntimeError(f"the load has ended with status {status}")
        found: dict[str, Any] = json.loads(said)
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
            # Its own, and that of children that have ended and were waited for.
            used[int(stat.parent.name)] = sum(map(int, fields[11:15])) / _TICKS
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

"""PostgreSQL and Mosquitto for the tests: the embedded ones, started without durability, one set a worker."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from service import migrations, paths, settings
from service.embedded import mosquitto, packages, postgres
from service.embedded.account import closed_parent, server_account

ACCOUNT: Final = server_account(settings.load().run_as)
PASSWORD: Final = "test"
_TEMPLATE: Final = "fleetwatt_template"
_MEMORY: Final = "/dev/shm"  # noqa: S108 - a folder of our own is made there # nosec B108
# Two workers have a server of each edition.
_MEMORY_BYTES: Final = 4 * 1024**3


def apache_root() -> Path:
    """Give the folder of the embedded servers, fetching them if need be."""
    return packages.install(ACCOUNT, lambda *_: None)


def community_root() -> Path | None:
    """Give a folder with a PostgreSQL that holds TimescaleDB Community, None if there is none here."""
    named = os.environ.get("FLEETWATT_TEST_PG_BIN")
    bin_dir = Path(named) if named else paths.cache_dir() / "community/usr/lib/postgresql/17/bin"
    if not (bin_dir / "postgres").is_file():
        return None
    root = bin_dir.parents[4]
    return root if closed_parent(bin_dir, ACCOUNT) is None else _reachable_copy(root)


def _reachable_copy(root: Path) -> Path:
    """Copy a root out of a folder that the servers' account may not enter, and make the copy run there."""
    stamp = str(
        max(file.stat().st_mtime_ns for file in root.glob("usr/lib/postgresql/17/lib/timescaledb*.so"))
    )
    target = packages.servers_dir(ACCOUNT).parent / f"community-{stamp}"
    if not target.exists():
        with tempfile.TemporaryDirectory(prefix="community-partial-", dir=target.parent) as scratch:
            copy = Path(scratch) / "root"
            shutil.copytree(root, copy, symlinks=True)
            packages.relocate(copy, target)
            with contextlib.suppress(OSError):  # another worker was faster
                copy.rename(target)
    return target


def free_port() -> int:
    """Give a port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _memory() -> str | None:
    """Give a file system in memory with room for test databases, None where there is none.

    Cloning a template is making 400 files: 25 ms there, 300 ms on a disk.
    """
    try:
        room = os.statvfs(_MEMORY)
    except OSError:
        return None
    fits = room.f_bavail * room.f_frsize >= _MEMORY_BYTES and os.access(_MEMORY, os.W_OK | os.X_OK)
    return _MEMORY if fits else None


@contextlib.contextmanager
def scratch_dir(*, in_memory: bool = False) -> Iterator[Path]:
    """Give a folder that the servers' account can enter, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fleetwatt-test-", dir=_memory() if in_memory else None))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def process(
    command: list[str], log_file: Path, stop_signal: signal.Signals
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server as the servers' account and end it afterwards."""
    options = ACCOUNT.popen_options() if ACCOUNT else {}
    # Mosquitto and PostgreSQL speak sd_notify too: a test that listens means the worker.
    environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    with log_file.open("ab") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, cwd="/", env=environment, **options)
    try:
        yield server
    finally:
        server.send_signal(stop_signal)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


class Postgres:
    """A running server and a migrated template that each test clones."""

    def __init__(self, root: Path, port: int, log_file: Path) -> None:
        self.root = root
        self.port = port
        self.log_file = log_file
        self._count = 0

    def url(self, user: str, database: str) -> str:
        """Give the address of a database for a role."""
        return postgres.url(self.port, user, PASSWORD, database)

    def admin(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """Connect as the superuser."""
        return psycopg.connect(self.url("postgres", database), autocommit=True)

    def make_template(self) -> None:
        """Create the roles and a migrated database to clone."""
        with self.admin() as connection:
            for role in postgres.ROLES:
                connection.execute(
                    sql.SQL("create role {} login password {}").format(sql.Identifier(role), PASSWORD)
                )
            connection.execute("alter role fleetwatt_owner createrole")
            # As quick to check as those of the roles above.
            connection.execute(sql.SQL("alter role postgres password {}").format(PASSWORD))
        self.create_empty(_TEMPLATE)
        migrations.migrate(self.url("fleetwatt_owner", _TEMPLATE))
        with self.admin() as connection:
            connection.execute(
                sql.SQL("alter database {} allow_connections false").format(sql.Identifier(_TEMPLATE))
            )

    def create_empty(self, name: str) -> None:
        """Create a database with the extension and nothing else."""
        with self.admin() as connection:
            connection.execute(
                sql.SQL("create database {} owner fleetwatt_owner").format(sql.Identifier(name))
            )
        with self.admin(name) as connection:
            connection.execute("create extension timescaledb")

    @contextlib.contextmanager
    def database(self, *, empty: bool = False) -> Iterator[str]:
        """Give the name of a fresh database, a clone of the template unless `empty`, dropped afterwards."""
        self._count += 1
        name = f"test_{self._count}"
        if empty:
            self.create_empty(name)
        else:
            with self.admin() as connection:
                connection.execute(
                    sql.SQL("create database {} template {} strategy file_copy owner fleetwatt_owner").format(
                        sql.Identifier(name), sql.Identifier(_TEMPLATE)
                    )
                )
        try:
            yield name
        finally:
            with self.admin() as connection:
                connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@contextlib.contextmanager
def running_postgres(
    root: Path, changed: dict[str, str] | None = None, *, in_memory: bool = False
) -> Iterator[Postgres]:
    """Run a server that forgets everything at the end: no fsync, no background workers, unless `changed`."""
    with scratch_dir(in_memory=in_memory) as folder:
        data = folder / "postgres"
        postgres.initialise(root, data, PASSWORD, ACCOUNT)
        port = free_port()
        # Without background workers cloning the template has no race (see the traps in docs/decisions.md).
        quick = {
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "timescaledb.max_background_workers": "0",
            "shared_buffers": "128MB",
            "max_connections": "60",
            # A test makes some eight connections; 4,096 rounds of SHA-256 take longer than all else of one.
            "scram_iterations": "1",
            **(changed or {}),
        }
        log_file = folder / "postgres.log"
        with process(postgres.command_line(root, data, port, quick), log_file, signal.SIGINT):
            server = Postgres(root, port, log_file)
            _wait_until(lambda: server.admin().close(), log_file)
            server.make_template()
            yield server


@contextlib.contextmanager
def running_mosquitto(root: Path) -> Iterator[int]:
    """Run a broker; give its port."""
    with scratch_dir() as folder:
        port = free_port()
        command = mosquitto.command_line(root, folder / "mosquitto", port, ACCOUNT)
        log_file = folder / "mosquitto.log"
        with process(command, log_file, signal.SIGTERM):
            wait_for_port(port, log_file)
            yield port


def wait_for_port(port: int, log_file: Path) -> None:
    """Wait until something listens on a port."""
    _wait_until(lambda: socket.create_connection(("127.0.0.1", port), 1).close(), log_file)


def _wait_until(attempt: object, log_file: Path) -> None:
    assert callable(attempt)
    deadline = time.monotonic() + 30
    while True:
        try:
            attempt()
        except (OSError, psycopg.OperationalError):
            if time.monotonic() > deadline:
                raise AssertionError(log_file.read_text()[-2000:]) from None
            time.sleep(0.05)
        else:
            return

"""PostgreSQL's streaming replication with the embedded servers: a primary, its replica, a change of roles."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import psycopg
from prometheus_client import REGISTRY

from service.embedded import postgres
from service.embedded.account import give
from tests.support import servers
from tests.support.servers import ACCOUNT, PASSWORD, Postgres

_ROLE: Final = "fleetwatt_replication"
_PATIENCE_S: Final = 30.0


def allow(port: int) -> None:
    """Make the role that replicas log in with, where it is missing."""
    with _superuser(port) as connection:
        known = connection.execute("select from pg_roles where rolname = %s", [_ROLE]).fetchone()
        if known is None:
            connection.execute(f"create role {_ROLE} replication login password '{PASSWORD}'")


def base_backup(root: Path, primary: int, data: Path, name: str) -> None:
    """Make a data folder of a replica of the server at a port; `name` is what that server knows it by."""
    data.mkdir(mode=0o700)
    give(data, ACCOUNT)
    address = (
        f"host=127.0.0.1 port={primary} user={_ROLE} password={PASSWORD} application_name={name} "
        "dbname=postgres"
    )
    _run(
        [
            str(postgres.bin_dir(root) / "pg_basebackup"),
            *(f"--pgdata={data}", f"--dbname={address}"),
            *("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast"),
        ]
    )


def promote(root: Path, data: Path) -> None:
    """Make a replica the primary; returns once it takes writes."""
    _run([str(postgres.bin_dir(root) / "pg_ctl"), "promote", "--wait", "--pgdata", str(data)])


def wait_for(port: int, name: str, *, synchronous: bool) -> None:
    """Have commits on a primary wait until a replica has flushed them, or not; return once it is so."""
    with _superuser(port) as connection:
        names = f'FIRST 1 ("{name}")' if synchronous else ""
        connection.execute(psycopg.sql.SQL("alter system set synchronous_standby_names = {}").format(names))
        connection.execute("select pg_reload_conf()")
        wanted = "sync" if synchronous else "async"
        until(
            lambda: (
                connection.execute(
                    "select from pg_stat_replication "
                    "where application_name = %s and state = 'streaming' and sync_state = %s",
                    [name, wanted],
                ).fetchone()
                is not None
            )
        )


def caught_up(primary: int, replica: int) -> None:
    """Wait until a replica shows all that was committed on its primary by now."""
    with _superuser(primary) as here, _superuser(replica) as there:
        row = here.execute("select pg_current_wal_flush_lsn()").fetchone()
        until(
            lambda: there.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", row).fetchone() == (True,)
        )


def asked(result: str) -> float:
    """Tell how many questions of this process had a result so far (fleetwatt_replica_questions_total)."""
    return REGISTRY.get_sample_value("fleetwatt_replica_questions_total", {"result": result}) or 0.0


def until(done: Any) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + _PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.02)


def _superuser(port: int) -> psycopg.Connection[Any]:
    return psycopg.connect(postgres.url(port, "postgres", PASSWORD, "postgres"), autocommit=True)


def _run(command: list[str]) -> None:
    options = ACCOUNT.popen_options() if ACCOUNT else {}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **options)
    assert ended.returncode == 0, ended.stderr


class Node:
    """A server of a pair that can be killed, frozen and started again."""

    def __init__(self, root: Path, data: Path, settings: Mapping[str, str]) -> None:
        self.root = root
        self.data = data
        self.port = servers.free_port()
        self.log_file = data.with_suffix(".log")
        self._settings = settings
        self._stack = contextlib.ExitStack()
        self.pid = 0

    def start(self) -> None:
        """Start it; return once it answers."""
        command = postgres.command_line(self.root, self.data, self.port, self._settings)
        running = servers.process(command, self.log_file, signal.SIGINT)
        self.pid = self._stack.enter_context(running).pid
        servers.wait_for_port(self.port, self.log_file)
        until(self._answers)

    def _answers(self) -> bool:
        try:
            _superuser(self.port).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Stop it; one that was killed is only waited for."""
        self._stack.close()

    def kill(self) -> None:
        """Kill (-9) its postmaster: its other processes end in their own time."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all its processes in their tracks until the end of the block."""
        with _superuser(self.port) as connection:
            found = connection.execute("select pid from pg_stat_activity").fetchall()
        pids = [self.pid, *(pid for (pid,) in found)]
        try:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


class Pair:
    """A primary and a replica of it."""

    def __init__(self, primary: Node, replica: Node) -> None:
        self.primary = primary
        self.replica = replica

    def caught_up(self) -> None:
        """Wait until the replica shows all that was committed by now."""
        caught_up(self.primary.port, self.replica.port)

    def promote(self) -> None:
        """Make the replica a primary; return once it takes writes."""
        promote(self.replica.root, self.replica.data)

    def at_replica(self) -> psycopg.Connection[Any]:
        """Connect to the replica as the superuser."""
        return _superuser(self.replica.port)


@contextlib.contextmanager
def running_pair(
    root: Path, *, synchronous: bool = False, changed: Mapping[str, str] | None = None
) -> Iterator[tuple[Pair, Postgres]]:
    """Run a primary with a migrated template to clone, and its replica; `changed` are settings of both.

    Where `synchronous`, whoever commits waits until the replica has flushed it.
    """
    settings = {"shared_buffers": "128MB", "max_connections": "60", **(changed or {})}
    with servers.scratch_dir() as folder, contextlib.ExitStack() as stack:
        primary = Node(root, folder / "first", settings)
        postgres.initialise(root, primary.data, PASSWORD, ACCOUNT)
        primary.start()
        stack.callback(primary.stop)
        server = Postgres(root, primary.port, primary.log_file)
        server.make_template()
        allow(primary.port)
        replica = Node(root, folder / "second", settings)
        base_backup(root, primary.port, replica.data, "second")
        replica.start()
        stack.callback(replica.stop)
        wait_for(primary.port, "second", synchronous=synchronous)
        yield Pair(primary, replica), server

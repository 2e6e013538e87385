"""A PostgreSQL of a test's own: empty, without fleetwatt's roles, and to be restarted on the same data."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from service.embedded import postgres
from tests.support import servers
from tests.support.servers import Postgres


@contextlib.contextmanager
def running(root: Path, data: Path, changed: dict[str, str] | None = None) -> Iterator[Postgres]:
    """Run a server on a data folder, which is made where there is none yet, and stop it in good order."""
    postgres.initialise(root, data, servers.PASSWORD, servers.ACCOUNT)
    port = servers.free_port()
    quick = {
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "timescaledb.max_background_workers": "0",
        "shared_buffers": "64MB",
        "max_connections": "40",
        **(changed or {}),
    }
    log_file = data.with_name(data.name + ".log")
    with servers.process(postgres.command_line(root, data, port, quick), log_file, signal.SIGINT):
        server = Postgres(root, port, log_file)
        _wait_until_it_answers(server)
        yield server


def _wait_until_it_answers(server: Postgres) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            server.admin().close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise AssertionError(server.log_file.read_text()[-2000:]) from None
            time.sleep(0.05)
        else:
            return

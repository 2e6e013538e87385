"""The embedded PostgreSQL: a data folder, a command line, roles with generated passwords, a database."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psycopg

from service.embedded.account import Account, give
from service.embedded.processes import Child
from service.errors import EmbeddedError
from service.sql import query

ROLES: Final = ("fleetwatt_owner", "fleetwatt_service", "fleetwatt_bi")
DATABASE: Final = "fleetwatt"


def bin_dir(servers: Path) -> Path:
    """Give the folder of PostgreSQL's programs."""
    return servers / "usr/lib/postgresql/17/bin"


def initialise(servers: Path, data: Path, superuser_password: str, account: Account | None) -> None:
    """Create the data folder with initdb; one that was only half made before is made anew.

    UTF-8 with the built-in C.UTF-8 locale: sorting never depends on the machine, and page checksums on.
    """
    if (data / "PG_VERSION").is_file():
        return
    partial = data.with_name(data.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    give(partial, account)
    with tempfile.NamedTemporaryFile("w", prefix="fleetwatt-", suffix=".pw") as password_file:
        password_file.write(superuser_password)
        password_file.flush()
        give(Path(password_file.name), account)
        command = [
            str(bin_dir(servers) / "initdb"),
            f"--pgdata={partial}",
            "--username=postgres",
            f"--pwfile={password_file.name}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--data-checksums",
        ]
        options = account.popen_options() if account else {}
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **options)
    if result.returncode != 0:
        raise EmbeddedError(f"initdb could not create {data}:\n{result.stderr.strip()}")
    partial.rename(data)


def command_line(servers: Path, data: Path, port: int, changed: Mapping[str, str] | None = None) -> list[str]:
    """Give the command that runs the server, on loopback only; `changed` replaces settings of ours."""
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    values = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "shared_preload_libraries": "timescaledb",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "jit": "off",
        "shared_buffers": f"{max(64, min(2048, memory_mb // 8))}MB",
        "effective_cache_size": f"{max(128, memory_mb // 2)}MB",
        "work_mem": "16MB",
        # One process asks already; more than there are cores only wait for each other.
        "max_parallel_workers_per_gather": str(max(1, len(os.sched_getaffinity(0)) // 2)),
        "maintenance_work_mem": f"{max(64, min(512, memory_mb // 32))}MB",
        "wal_compression": "lz4",
        "max_wal_size": "4GB",
        # Files of the log that are used again need not be filled with zeros first, while commits wait.
        "min_wal_size": "1GB",
        "checkpoint_timeout": "15min",
        # After a crash the server makes the whole data folder durable first: file by file that takes seconds
        # (thousands of files), by file system tenths of one.
        "recovery_init_sync_method": "syncfs",
        "max_locks_per_transaction": "512",
        "timescaledb.max_background_workers": "8",
        "max_worker_processes": "24",
        "log_line_prefix": "%m [%p] %a ",
        **(changed or {}),
    }
    command = [str(bin_dir(servers) / "postgres"), "-D", str(data)]
    for name, value in values.items():
        command += ["-c", f"{name}={value}"]
    return command


def server(servers: Path, data: Path, port: int, log_file: Path, account: Account | None) -> Child:
    """Give the server process."""
    # SIGINT is PostgreSQL's fast shutdown: open transactions are rolled back, all is flushed.
    return Child(
        "postgres",
        command_line(servers, data, port),
        log_file,
        stop_signal=signal.SIGINT,
        account=account,
        grace_s=60.0,
    )


def url(port: int, user: str, password: str, database: str = DATABASE) -> str:
    """Give the address of a database for one of the roles."""
    return f"postgresql://{user}:{password}@127.0.0.1:{port}/{database}"


async def answers(superuser_url: str) -> bool:
    """Tell whether the server takes connections (it refuses them during recovery)."""
    try:
        connection = await psycopg.AsyncConnection.connect(superuser_url, connect_timeout=2)
    except psycopg.OperationalError:
        return False
    await connection.close()
    return True


async def prepare(port: int, passwords: dict[str, str]) -> None:
    """Create roles, database and extension where they are missing. `passwords` is by role name."""
    async with await psycopg.AsyncConnection.connect(
        url(port, "postgres", passwords["postgres"], "postgres"), autocommit=True
    ) as connection:
        for role in ROLES:
            await connection.execute(
                query("offer_role_password"), {"role": role, "password": passwords[role]}
            )
            await connection.execute(query("create_login_role"))
        await connection.execute(query("let_owner_create_roles"))
        row = await (await connection.execute(query("database_exists"))).fetchone()
        if not (row and row[0]):
            await connection.execute(query("create_database"))
    async with await psycopg.AsyncConnection.connect(
        url(port, "postgres", passwords["postgres"]), autocommit=True
    ) as connection:
        await connection.execute(query("create_extension"))
        await connection.execute(query("quiet_job_history"))

"""No secret shows: every secret setting holds a canary, everything goes wrong, and nobody hears it sing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import httpx
import msgspec
import pytest

from service import paths, secret
from service import settings as settings_module
from service.settings import PREFIX, Settings
from tests.support import servers
from tests.support.servers import Postgres

CANARY: Final = "cAnArY-7qx"
_ROOT: Final = Path(paths.__file__).parents[1]
# What is written once something has been tried and refused; then it is time to look.
_SIGNS: Final = ("error connecting", "database_away", "broker_away", "authentication failed")
_LONGEST_S: Final = 40.0


def _secrets(database: str) -> dict[str, str]:
    """Give a value with a canary for every secret setting; `database` is an address without password."""
    login = database.replace("//", "//fleetwatt_service:" + CANARY + "@")
    broker = f"mqtt://user:{CANARY}@127.0.0.1:{servers.free_port()}"
    known = {
        "database_url": login,
        "migrate_database_url": login,
        "read_database_url": login,
        "mqtt_url": broker,
        "traces_url": f"http://user:{CANARY}@127.0.0.1:{servers.free_port()}/{CANARY}?token={CANARY}",
        "alert_webhook_url": f"http://127.0.0.1:{servers.free_port()}/{CANARY}?token={CANARY}",
    }
    names = [
        field.name
        for field in msgspec.structs.fields(Settings)
        if settings_module._mark(field)  # noqa: SLF001 - so that none is forgotten
    ]
    assert len(names) >= 6
    return {PREFIX + name.upper(): known.get(name, CANARY) for name in names}


def _environment(database: str, folder: Path, **changed: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    ours = {"FLEETWATT_LOG_LEVEL": "debug", "FLEETWATT_DATA_DIR": str(folder), **_secrets(database)}
    return plain | ours | {"FLEETWATT_RETRY_MAX_S": "0.5", "NO_COLOR": "1"} | changed


def _command_lines(pid: int) -> str:
    """Give what the process list shows of a process and its children."""
    shown = ""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if entry.name == str(pid) or parent == str(pid):
                shown += (entry / "cmdline").read_text().replace("\0", " ") + "\n"
    return shown


def _watch(command: str, environment: dict[str, str], folder: Path, port: int | None = None) -> str:
    """Run a command until it ends or has failed; give all that it wrote, answered and is listed as."""
    output = folder / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", *command.split()],
            cwd=_ROOT,
            env=environment,
            stdout=file,
            stderr=file,
        )
    told = ""
    try:
        deadline = time.monotonic() + _LONGEST_S
        while process.poll() is None and time.monotonic() < deadline:
            if port is not None and any(sign in output.read_text() for sign in _SIGNS):
                told = _command_lines(process.pid) + _answers(port)
                # Unless it ended in this moment: then it is listed no longer.
                assert "service" in told or process.poll() is not None
                break
            time.sleep(0.2)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return told + output.read_text()


def _answers(port: int) -> str:
    """Give what a service says over HTTP, where one listens."""
    told = ""
    for path in ("/metrics", "/health/ready", "/v1/analytics/stats", "/v1/telemetry"):
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5, trust_env=False)
            told += f"{path} {answer.status_code} {answer.headers} {answer.text}\n"
    return told


COMMANDS: Final = [
    "settings",
    "serve",
    "worker",
    "migrate",
    "sessions list",
    "key list",
    "dead-letters list",
    "seed 1 1",
    "simulate --devices 1 --for 2",
    "import readings.csv",
    "status",
]


@pytest.mark.parametrize(
    ("command", "log_format"),
    [("serve", "text"), ("worker", "text"), *((command, "json") for command in COMMANDS)],
)
def test_database_and_broker_away(command: str, log_format: str, tmp_path: Path) -> None:
    """Refused connections are told by host and port, without password, key, or the webhook's path."""
    (tmp_path / "readings.csv").write_text("meterId,timestamp,kwh,voltage\nm,2026-01-31T12:00:00Z,1,230\n")
    port = servers.free_port()
    environment = _environment(
        f"postgresql://127.0.0.1:{servers.free_port()}/d",
        tmp_path,
        FLEETWATT_HTTP_PORT=str(port),
        FLEETWATT_LOG_FORMAT=log_format,
    )
    told = _watch(command.replace("readings", f"{tmp_path}/readings"), environment, tmp_path, port)
    assert told
    assert CANARY not in told, told


@pytest.mark.parametrize("edition", ["apache"])  # nothing here depends on it
@pytest.mark.parametrize("command", ["serve", "worker", "migrate", "key list"])
def test_a_wrong_password(postgres: Postgres, command: str, tmp_path: Path) -> None:
    """A server that refuses the password makes us say so, and not which one it was."""
    port = servers.free_port()
    address = f"postgresql://127.0.0.1:{postgres.port}/postgres"
    told = _watch(command, _environment(address, tmp_path, FLEETWATT_HTTP_PORT=str(port)), tmp_path, port)
    assert "authentication failed" in told
    assert CANARY not in told, told


_BAD: Final = [
    f"postgresql://u:{CANARY}@[h/d",
    f"postgresql://u:{CANARY}%zz@h/d",
    f"postgresql://u:1/{CANARY}@h/d",
    CANARY,
]
_NEED_A_DATABASE: Final = [
    "serve",
    "worker",
    "migrate",
    "key list",
    "seed 1 1",
    "sessions list",
    "dead-letters list",
]


# tests/unit/test_dsn.py has more addresses; here each way to use one comes up once.
@pytest.mark.parametrize(("command", "url"), list(zip(_NEED_A_DATABASE, _BAD * 2, strict=False)))
def test_an_address_that_cannot_be_read(command: str, url: str, tmp_path: Path) -> None:
    """A password that was not encoded as it should be ends the command, unseen."""
    changed = {"FLEETWATT_DATABASE_URL": url, "FLEETWATT_MIGRATE_DATABASE_URL": ""}
    told = _watch(command, _environment("postgresql://h/d", tmp_path, **changed), tmp_path)
    assert "FLEETWATT_DATABASE_URL cannot be read" in told
    assert CANARY not in told, told


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_defect(log_format: str) -> None:
    """A traceback in the log shows lines of code, never the values of variables."""
    code = (
        "from service import log\n"
        f"log.configure('debug', '{log_format}')\n"
        f"def broken(password):\n    raise RuntimeError('a defect')\n"
        "try:\n    broken(''.join(reversed('" + CANARY[::-1] + "')))\n"
        "except RuntimeError:\n    log.get('test').exception('failed')\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True
    ).stderr
    assert "a defect" in told
    assert CANARY not in told


def test_a_secret_from_a_file_is_hidden_too(tmp_path: Path) -> None:
    """`fleetwatt settings` tells which secrets are set, also by a file, and not what they are."""
    file = tmp_path / "url"
    file.write_text(f"postgresql://u:{CANARY}@h/d\n")
    environment = _environment("postgresql://h/d", tmp_path)
    del environment["FLEETWATT_DATABASE_URL"]
    named = {"FLEETWATT_DATABASE_URL" + secret.FILE_SUFFIX: str(file)}
    told = _watch("settings", environment | named, tmp_path)
    assert "postgresql://u:***@h/d" in told
    assert CANARY not in told

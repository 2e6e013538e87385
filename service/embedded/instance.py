"""One data folder, one running engine: its lock, its passwords, its state file, and how to find it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import signal
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import msgspec

from service import paths
from service.embedded.account import Account, closed_parent, server_account
from service.embedded.postgres import ROLES
from service.embedded.processes import end_leftover
from service.errors import EmbeddedError
from service.settings import Settings

STATE_FILE: Final = "fleetwatt.json"
_LOCK_FILE: Final = "lock"
_PASSWORDS_FILE: Final = "passwords.json"


class Process(msgspec.Struct, frozen=True):
    """A child process, by the pair that names it for good, and the signal that ends it well."""

    name: str
    pid: int
    started: int
    stop_signal: int


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What a running engine tells about itself; only its user may read it, since URLs hold passwords."""

    pid: int
    started: int
    ready: bool
    data_dir: str
    http: str
    mqtt: str
    database: str
    service_database: str
    bi_database: str
    http_port: int
    mqtt_port: int
    db_port: int
    processes: list[Process]
    # How long data are kept, by the names of the settings; unknown of an engine of an earlier release.
    rules: dict[str, int] = {}


def default_dirs(settings: Settings) -> dict[str, Path]:
    """Give the data folders that are used when none is named: for `up`, and for the demo."""
    if settings.data_dir:
        folder = Path(settings.data_dir).absolute()
        return {"data": folder, "demo": folder.with_name(f"{folder.name}-demo")}
    home = paths.data_home()
    if closed_parent(home, server_account(settings.run_as)) is not None:
        home = Path("/var/lib/fleetwatt")
        if os.environ.get("XDG_DATA_HOME"):
            # Whoever chose a place of his own gets one: two of them must not meet on one folder.
            home /= hashlib.sha256(str(paths.data_home()).encode()).hexdigest()[:12]
    return {"data": home / "data", "demo": home / "demo"}


def prepare_dir(folder: Path, account: Account | None) -> Path:
    """Create the data folder, and make sure that the servers' account can get into it.

    Raises EmbeddedError when a folder above it is closed to that account, or it holds something else.
    """
    folder = folder.absolute()
    closed = closed_parent(folder.parent, account)
    if closed is not None and account is not None:
        raise EmbeddedError(
            f"the servers run as {account.name!r}, who cannot enter {closed}: choose a data folder elsewhere "
            f"(--data-dir), or open that folder with `chmod o+x {closed}`"
        )
    try:
        _make(folder, account)
        strangers = sorted(entry.name for entry in folder.iterdir())
        if strangers and not (folder / _LOCK_FILE).exists():
            raise EmbeddedError(
                f"{folder} holds other files ({strangers[0]} ...): choose an empty or new folder"
            )
        (folder / _LOCK_FILE).touch(mode=0o600)
        if account is not None:
            # The folder is ours, so we may open it for passing through; what is in it stays closed.
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o111)
    except OSError as error:
        raise EmbeddedError(f"cannot use {folder} as data folder: {error.strerror}") from None
    logs = folder / "logs"
    logs.mkdir(exist_ok=True, mode=0o700)
    return folder


def _make(folder: Path, account: Account | None) -> None:
    """Create a folder and what is missing above it, open for the servers' account to pass through."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if account is not None:
        for parent in missing:
            parent.chmod(0o755)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it when the process ends, however it ends."""
    with (folder / _LOCK_FILE).open("a") as lock:
        try:
            _take(lock)
        except BlockingIOError:
            running = read_state(folder)
            where = f" (process {running.pid}, {running.http})" if running else ""
            raise EmbeddedError(
                f"fleetwatt already runs on {folder}{where}: see `fleetwatt status`, end it with "
                "`fleetwatt down`, or choose another --data-dir"
            ) from None
        yield


def _take(lock: IO[str]) -> None:
    """Take the lock; somebody who only looks whether it is held has it for a moment, so try for a while."""
    deadline = time.monotonic() + 0.5
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def is_locked(folder: Path) -> bool:
    """Tell whether a process holds the folder; looking leaves no trace in it."""
    try:
        with (folder / _LOCK_FILE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def read_state(folder: Path) -> Running | None:
    """Give what the last (or current) engine on the folder wrote about itself."""
    try:
        return msgspec.json.decode((folder / STATE_FILE).read_bytes(), type=Running)
    except (OSError, msgspec.MsgspecError):
        return None


def write_state(folder: Path, running: Running) -> None:
    """Replace the state file in one step, readable by its owner only."""
    _write_private(folder / STATE_FILE, msgspec.json.encode(running))


def find_running(settings: Settings, folder: Path | None = None) -> Running | None:
    """Give the running, ready engine on a folder, or on one of the default folders."""
    folders = [folder] if folder else list(default_dirs(settings).values())
    for candidate in folders:
        if is_locked(candidate):
            running = read_state(candidate)
            if running is not None and running.ready:
                return running
    return None


def passwords(folder: Path) -> dict[str, str]:
    """Give the passwords of the database's roles, generated once for the folder."""
    file = folder / _PASSWORDS_FILE
    try:
        known = msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        known = {role: secrets.token_urlsafe(24) for role in ("postgres", *ROLES)}
        _write_private(file, msgspec.json.encode(known))
    return known


def _write_private(file: Path, content: bytes) -> None:
    partial = file.with_name(file.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())
    partial.rename(file)


def end_leftovers(state: Running | None) -> list[str]:
    """End what a killed supervisor left running, by its state; give the names. Call it under the lock."""
    if state is None:
        return []
    return [
        process.name
        for process in reversed(state.processes)
        if end_leftover(process.pid, process.started, signal.Signals(process.stop_signal))
    ]


def choose_port(given: int | None, before: int | None, what: str) -> int:
    """Give the port that was asked for, else the one of the last run if it is free, else any free one.

    Raises EmbeddedError when the port that was asked for is taken.
    """
    if given is not None:
        if not _is_free(given):
            raise EmbeddedError(
                f"port {given} for {what} is taken: choose another, or leave the choice to fleetwatt"
            )
        return given
    if before is not None and _is_free(before):
        return before
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

"""What the units of deploy/systemd say, and a machine on which docs/install.md is followed without systemd.

Paths are ones of the test's own. What systemd would do is done here: the account, the variables, READY=1
where the unit promises it, the signal to the first process alone, the time that it may take.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from service.embedded.notify import Listener
from tests.deploy.containers import find_uv, python_for_all
from tests.deploy.files import ROOT, dockerfile
from tests.support import servers

FOLDER: Final = ROOT / "deploy/systemd"
UNITS: Final = sorted(file.name for file in FOLDER.glob("*.service"))
PROGRAM: Final = "/opt/fleetwatt/current/bin/fleetwatt"
ANALYZE: Final = shutil.which("systemd-analyze")
# Folders of a machine.
_TOPS: Final = (
    "/opt/fleetwatt",
    "/etc/fleetwatt",
    "/etc/systemd",
    "/usr/local/sbin",
    "/var/lib/fleetwatt",
    "/var/cache",
)
_PATIENCE_S: Final = 150


def said(unit: str, folder: Path = FOLDER) -> dict[str, list[str]]:
    """Give all values of each name in a unit."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", (folder / unit).read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def assigned(texts: Sequence[str]) -> dict[str, str]:
    """Read assignments as systemd and a shell do."""
    return dict(word.split("=", 1) for text in texts for word in shlex.split(text, comments=True))


class Box:
    """A machine of its own, as far as a folder can be one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "src"
        for *names, to in (
            rest.split() for word, rest in dockerfile() if word == "COPY" and not rest.startswith("--from")
        ):
            for name in names if not to.startswith("/") else ():
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                (self.source / name).parent.mkdir(parents=True, exist_ok=True)
                copy(ROOT / name, self.source / name)
        shutil.copytree(FOLDER, self.source / "deploy/systemd")
        for file in (self.source / "deploy/systemd").iterdir():
            file.write_text(self.here(file.read_text()))
        for top in ("/usr/local/sbin", "/etc/systemd/system", "/opt/fleetwatt/tools/bin", "/var/cache"):
            Path(self.here(top)).mkdir(parents=True)
        self.data = Path(self.here("/var/lib/fleetwatt"))
        self.data.mkdir(parents=True)
        if servers.ACCOUNT:
            os.chown(self.data, servers.ACCOUNT.uid, servers.ACCOUNT.gid)
        Path(self.here("/opt/fleetwatt/tools/bin/uv")).symlink_to(find_uv())
        Path(self.here("/var/cache/fleetwatt")).symlink_to(servers.apache_root().parent)
        # What only a real machine has, and a package index.
        (folder / "bin").mkdir()
        for name in ("apt-get", "useradd", "systemctl", "python3", "pip"):
            (folder / "bin" / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/asked\n')
            (folder / "bin" / name).chmod(0o755)
        (folder / "asked").touch()

    def here(self, text: str) -> str:
        """Give a text with the paths of this machine."""
        for top in _TOPS:
            text = text.replace(top, f"{self.folder}{top}")
        return text

    def run(self, text: str, **variables: str) -> str:
        """Run commands of the page from the source's folder; give what they print, errors apart.

        Raises AssertionError where one fails.
        """
        group = f"-g {servers.ACCOUNT.gid}" if servers.ACCOUNT else ""
        text = self.here(text).replace("-g fleetwatt", group)
        text = text.replace(self.here("/opt/fleetwatt/tools/bin/pip"), "pip")
        programs = (
            f"{self.folder}/bin",
            self.here("/usr/local/sbin"),
            f"{servers.apache_root()}/usr/lib/postgresql/17/bin",
            os.defpath,
        )
        environment = {"PATH": ":".join(programs), "UV_PYTHON": python_for_all(), "HOME": os.environ["HOME"]}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            cwd=self.source, env=environment | variables, timeout=_PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 0, (text, done.stderr)
        return done.stdout

    def asked(self) -> list[str]:
        """Give what was asked of systemctl and the like, in order."""
        return (self.folder / "asked").read_text().splitlines()

    @contextlib.contextmanager
    def running(self, unit: str, instance: str = "", **changed: str) -> Iterator[Path]:
        """Do with a unit what systemd does, until the end of the block; give its log.

        Raises AssertionError where it is not ready, or does not end as it should in the time that it names.
        """
        own = said(unit, Path(self.here("/etc/systemd/system")))
        words = [word.replace("%i", instance) for word in shlex.split(own["ExecStart"][0])]
        environment = assigned([text.replace("%i", instance) for text in own.get("Environment", [])])
        environment |= assigned([Path(file).read_text() for file in own["EnvironmentFile"]])
        log_file = self.folder / f"{unit}-{instance}.log"
        account = servers.ACCOUNT.popen_options() if servers.ACCOUNT else {}
        with Listener() as listener, log_file.open("wb") as output:
            told = {"NOTIFY_SOCKET": listener.address} if own["Type"] == ["notify"] else {}
            home = {"PATH": os.defpath, "HOME": str(self.data)}
            process = subprocess.Popen(
                words, stdout=output, stderr=output, cwd="/", umask=int(own["UMask"][0], 8),
                env=home | environment | told | changed, **account,
            )  # fmt: skip
            try:
                deadline = time.monotonic() + _PATIENCE_S
                while told and process.poll() is None and not listener.is_ready():
                    assert time.monotonic() < deadline, log_file.read_text()
                    time.sleep(0.05)
                assert process.poll() is None, log_file.read_text()
                yield log_file
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    code = process.wait(float(own["TimeoutStopSec"][0]))
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise
        assert code == 0, log_file.read_text()

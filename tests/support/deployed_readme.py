"""The commands of deploy/mosquitto/README.md, run as they stand, in a folder of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import re
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.support import servers
from tests.support.deployed_broker import DEPLOYED
from tests.support.mqtt_raw import RawClient

_PROJECT: Final = DEPLOYED.parents[1]
# Only a command that hangs waits that long.
_PATIENCE_S: Final = 40
# Does of systemd what the page asks for; a reload is refused, as with service.conf.
_SYSTEMCTL: Final = """#!/bin/bash
case "$*" in
  daemon-reload | "enable mosquitto") exit 0 ;;
  "restart mosquitto") ;;
  *) echo "systemctl $*: not applicable" >&2; exit 1 ;;
esac
unset NOTIFY_SOCKET
if [ -f {folder}/pid ]; then
  kill -TERM "$(cat {folder}/pid)"
  # An orphan may stay a zombie where nobody reaps.
  while grep -qs '^State:.*[A-Y] ' "/proc/$(cat {folder}/pid)/status"; do sleep 0.02; done
fi
setsid mosquitto -c {folder}/etc/mosquitto/mosquitto.conf < /dev/null >> {folder}/log 2>&1 &
echo $! > {folder}/pid
until (: < /dev/tcp/127.0.0.1/{port}) 2> /dev/null; do
  grep -qs '^State:.*[A-Y] ' "/proc/$!/status" || {{ cat {folder}/log; exit 1; }}
  sleep 0.02
done
"""


class Readme:
    """A machine of its own, as far as a folder can be one, on which the page's commands are run."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.devices, self.services = servers.free_port(), servers.free_port()
        # What the page does not say is the machine's own, so no settings of ours go along.
        root = servers.apache_root() / "usr"
        path = f"{folder}/bin:{root}/bin:{root}/sbin:{root}/lib/postgresql/17/bin:{os.environ['PATH']}"
        self._environment = {"PATH": path, "FLEETWATT_DATABASE_URL": database_url}
        for name in ("bin", "etc", "var", "root"):
            (folder / name).mkdir(mode=0o755)
        self._tool("systemctl", _SYSTEMCTL.format(folder=folder, port=self.devices))
        self._tool("fleetwatt", f'#!/bin/sh\ncd {_PROJECT} && exec {sys.executable} -m service "$@"\n')

    def commands(self, heading: str) -> list[str]:
        """Give the blocks below a line that begins so, with the names of this machine."""
        page = (DEPLOYED / "README.md").read_text()
        below = page.split(f"\n{heading}", 1)[1]
        below = re.split(r"\n(?:#|\*\*)", below)[0]
        blocks = re.findall(r"```sh\n(.*?)```", below, re.DOTALL)
        assert blocks, heading
        return [self._translated(block) for block in blocks]

    async def run(self, *blocks: str) -> str:
        """Run blocks in one shell; give what they print. AssertionError if a command fails."""
        # To a file: a pipe would end only with the broker that a command may have started.
        file = self.folder / "output"
        with file.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                "bash", "-euo", "pipefail", "-c", "\n".join(blocks),
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=_PROJECT, env=self._environment,
            )  # fmt: skip
            await asyncio.wait_for(process.wait(), _PATIENCE_S)
        text = file.read_text()
        assert process.returncode == 0, text
        return text

    async def set_up(self) -> None:
        """Run the steps up to a broker that runs."""
        configuration = self.folder / "etc/mosquitto/mosquitto.conf"
        ports = (
            f"s/^listener 8883$/listener {self.devices} 127.0.0.1/; "
            f"s/^listener 8884$/listener {self.services} 127.0.0.1/"
        )
        folders = f"s|/etc/|{self.folder}/etc/|; s|/var/lib/|{self.folder}/var/lib/|"
        here = f"sed -i '{ports}; {folders}' {configuration}"
        steps = [self.commands(f"**{step}") for step in ("1. C", "2. C", "3. U", "4. S")]
        await self.run(*steps[0], here, *(block for step in steps[1:] for block in step))

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """Run a worker as the page says, until the end of the context; it may not have subscribed yet."""
        [block] = self.commands("**5. A worker**")
        command = block.replace("\nfleetwatt worker\n", "\nexec fleetwatt worker\n")
        with (self.folder / "worker.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                "bash", "-euc", command,
                cwd=_PROJECT, stdout=log, stderr=log,
                env=self._environment | {"NOTIFY_SOCKET": os.environ["NOTIFY_SOCKET"]},
            )  # fmt: skip
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    def context(self) -> ssl.SSLContext:
        """Give the TLS of a device."""
        return ssl.create_default_context(cafile=str(self.folder / "root/fleetwatt-ca/ca.crt"))

    @asynccontextmanager
    async def device(self, user: str, password: str = "") -> AsyncIterator[RawClient]:
        """Give a client that is logged in, with the password that the page's commands made unless told."""
        file = self.folder / "root/fleetwatt-passwords" / user.replace("/", "-")
        async with RawClient(self.devices, tls=self.context()) as client:
            assert await client.connect("x", (user, password or file.read_text().strip())) == 0
            yield client

    def _tool(self, name: str, text: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(text)
        file.chmod(0o755)

    def _translated(self, block: str) -> str:
        for standing, here in {
            "-o mosquitto -g mosquitto": "-o {} -g {}".format(*_account()),
            "broker.example": "localhost",
            " 8883": f" {self.devices}",
            ":8884": f":{self.services}",
        }.items():
            block = block.replace(standing, here)
        return re.sub(r"(?<![\w/])/(etc|var|root)/", rf"{self.folder}/\1/", block)


def _account() -> tuple[str, str]:
    """Give the account and group that a broker started by us runs as."""
    if os.geteuid() == 0:
        with contextlib.suppress(KeyError):
            return "mosquitto", grp.getgrgid(pwd.getpwnam("mosquitto").pw_gid).gr_name
        return "nobody", grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
    return pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name


@contextlib.contextmanager
def readme(database_url: str) -> Iterator[Readme]:
    """Give a machine on which nothing was done yet; what its commands started ends with it."""
    with servers.scratch_dir() as folder:
        try:
            yield Readme(folder, database_url)
        finally:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int((folder / "pid").read_text()), 15)

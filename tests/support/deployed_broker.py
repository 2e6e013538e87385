"""The broker as deploy/mosquitto configures it, on ports and in a folder of the test's own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from service import paths
from tests.support import servers
from tests.support.certificates import Authority
from tests.support.mqtt_raw import RawClient

DEPLOYED: Final = Path(paths.__file__).parents[1] / "deploy/mosquitto"
PASSWORD: Final = "pa55-word"
# A session that outlives its connection, in a CONNECT of MQTT 5.
LASTING: Final = bytes([17]) + (3600).to_bytes(4, "big")
USERS: Final = (
    "meter/M-1", "meter/M-2", "vehicle/V-1", "meter/+", "meter/#", "telemetry", "charging", "alerts",
)  # fmt: skip


class DeployedBroker:
    """Folder, ports and certificates of a broker; `running` runs it, as often as wanted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.devices, self.services = servers.free_port(), servers.free_port()
        self.log_file = folder / "log"
        self.authority = Authority(folder)
        (folder / "certs").mkdir(mode=0o755)
        for file, name in zip(self.authority.issue("server", "localhost"), ("crt", "key"), strict=True):
            shutil.copy(file, folder / f"certs/server.{name}")
        # Of services alone: what the broker's authority signs gets nobody in.
        self.services_authority = Authority(folder, "services-ca")
        shutil.copy(self.services_authority.file, folder / "certs/services-ca.crt")
        shutil.copy(DEPLOYED / "acl", folder / "acl")
        self.data = folder / "data"
        self.data.mkdir()
        self.data.chmod(0o777)
        self.set_passwords(*USERS)
        self.configure()

    def configure(self, **changed: str) -> None:
        """Write the configuration, with lines changed: what stands there, to what shall stand there."""
        text = (DEPLOYED / "mosquitto.conf").read_text()
        text = text.replace("/etc/mosquitto", str(self.folder)).replace("/var/lib/mosquitto", str(self.data))
        for standing, wanted in {
            "listener 8883": f"listener {self.devices} 127.0.0.1",
            "listener 8884": f"listener {self.services} 127.0.0.1",
            **changed,
        }.items():
            assert text.count(f"{standing}\n") == 1, standing
            text = text.replace(f"{standing}\n", f"{wanted}\n")
        self._write("mosquitto.conf", text)

    def set_passwords(self, *users: str) -> None:
        """Write the password file."""
        file = self._write("passwords", "".join(f"{user}:{PASSWORD}\n" for user in users))
        tool = str(servers.apache_root() / "usr/bin/mosquitto_passwd")
        subprocess.run([tool, "-U", str(file)], check=True, stderr=subprocess.DEVNULL)
        file.chmod(0o644)

    def context(self, user: str = "") -> ssl.SSLContext:
        """Give the TLS of a client that trusts the broker, with a certificate for a user if one is named."""
        context = ssl.create_default_context(cafile=str(self.authority.file))
        if user:
            context.load_cert_chain(*self.services_authority.issue("client", user=user))
        return context

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the broker."""
        command = [
            str(servers.apache_root() / "usr/sbin/mosquitto"),
            "-c",
            str(self.folder / "mosquitto.conf"),
        ]
        with servers.process(command, self.log_file, signal.SIGTERM) as process:
            servers.wait_for_port(self.devices, self.log_file)
            yield process

    def _write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.write_text(text)
        file.chmod(0o644)
        return file


@contextlib.contextmanager
def deployed_broker() -> Iterator[DeployedBroker]:
    """Give a broker as it is deployed, not running yet."""
    with servers.scratch_dir() as folder:
        yield DeployedBroker(folder)


@asynccontextmanager
async def device(
    broker: DeployedBroker, user: str = "meter/M-1", version: int = 5
) -> AsyncIterator[RawClient]:
    """Give a client that is logged in as a device."""
    async with RawClient(broker.devices, version=version, tls=broker.context()) as client:
        assert await client.connect("any id", (user, PASSWORD)) == 0
        yield client


@asynccontextmanager
async def observer(broker: DeployedBroker) -> AsyncIterator[RawClient]:
    """Give a client with the rights of a worker that sees all that workers see, each message once."""
    async with RawClient(broker.services, tls=broker.context("fleetwatt")) as client:
        assert await client.connect("observer", clean=False, properties=LASTING) == 0
        assert await client.subscribe("#", "$SYS/#") == (1, 1)
        yield client

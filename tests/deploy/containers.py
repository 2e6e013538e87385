"""The compose file's services as processes of this machine: their commands, environments, secrets.

Paths and addresses within containers become ones of the test's own, and nothing else is changed.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest

from service.embedded.account import closed_parent
from tests.deploy.files import MAKE_SECRETS, ROOT, command, compose, dockerfile, service
from tests.support import servers

_PATIENCE_S: Final = 30
_NO_UV: Final = "no uv here, which the Dockerfile installs with"


# A folder with mosquitto 2.1, mosquitto_passwd and mosquitto_persist_sqlite.so; Debian 13 has Mosquitto 2.0.
MOSQUITTO_21: Final = os.environ.get("FLEETWATT_TEST_MOSQUITTO", "")


def python_for_all() -> str:
    """Give an interpreter that the servers' account may run, the tests' own if it may be."""
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for found in (Path(sys.executable).resolve(), Path("/usr/bin/python3")):
        if closed_parent(found.parent, servers.ACCOUNT) or not found.exists():
            continue
        if subprocess.run([str(found), "-c", check], check=False).returncode == 0:
            return str(found)
    pytest.skip("no Python 3.11 that an ordinary user may run")


def install(folder: Path) -> Path:
    """Build and install the engine as the Dockerfile does; give the folder of its programs."""
    source, target, tools = folder / "src", folder / "venv", folder / "tools"
    source.mkdir()
    tools.mkdir()
    copies = [rest.split() for word, rest in dockerfile() if word == "COPY" and not rest.startswith("--from")]
    for *names, to in copies:
        for name in names:
            if not to.startswith("/"):
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                copy(ROOT / name, source / name)
    [run] = [rest for word, rest in dockerfile() if word == "RUN" and "install.sh" in rest]
    script = run.replace("/opt/fleetwatt", str(target))
    (tools / "uv").symlink_to(find_uv())
    own = {"EXTRAS": "", "UV_PYTHON": python_for_all(), "PATH": f"{tools}:{os.environ['PATH']}"}
    environment = os.environ | own
    # What is in uv's cache is as good; where it is not all there, a package index has to be asked.
    for more in ({"UV_OFFLINE": "1"}, {}):
        result = subprocess.run(
            ["sh", "-ec", script],
            cwd=source,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode == 0:
            break
        shutil.rmtree(target, ignore_errors=True)
    assert result.returncode == 0, result.stderr
    for name, to in (one for one in copies if one[-1].startswith("/")):
        shutil.copy(ROOT / name, target / "bin" / Path(to).name)
    return target / "bin"


def find_uv() -> str:
    """Give the program, or skip the test."""
    found = shutil.which("uv")
    if found is None:
        asked = subprocess.run(
            ["python3", "-c", "import uv; print(uv.find_uv_bin())"],
            capture_output=True,
            text=True,
            check=False,
        )
        found = asked.stdout.strip()
    return found or pytest.skip(_NO_UV)


class Machine:
    """Where the services run: their programs, secrets, ports and folders."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs
        self.servers = servers.community_root() or servers.apache_root()
        ports = ("database", "api", "metrics", "devices", "workers")
        self.ports = {name: servers.free_port() for name in ports}
        self.secrets = folder / "secrets"
        subprocess.run([str(MAKE_SECRETS), str(self.secrets)], check=True, stdout=subprocess.DEVNULL)
        # In a container the files alone are there, not the folder that is closed to others.
        self.secrets.chmod(0o711)
        for role in ("owner", "service"):
            self._change(
                self.secrets / f"{role}_database_url",
                "@database:5432",
                f"@127.0.0.1:{self.ports['database']}",
            )
        self.writable = {name: folder / name for name in ("workers", "database", "broker")}
        for each in self.writable.values():
            each.mkdir()
            if servers.ACCOUNT:
                os.chown(each, servers.ACCOUNT.uid, servers.ACCOUNT.gid)
        self.root = folder / "root"
        self.root.mkdir(mode=0o555)

    @staticmethod
    def _change(file: Path, standing: str, wanted: str) -> None:
        text = file.read_text()
        assert text.count(standing) == 1, (file.name, standing)
        file.chmod(0o644)
        file.write_text(text.replace(standing, wanted))

    def here(self, text: str) -> str:
        """Give a text of the compose file with paths and addresses of this machine."""
        for inside, outside in {
            "/run/secrets": self.secrets,
            "/etc/fleetwatt/roles.psql": self.folder / "roles.psql",
            "/mosquitto/config": self.folder,
            "/mosquitto/data": self.writable["broker"],
            "/var/lib/fleetwatt": self.writable["workers"],
            "--host=database": "--host=127.0.0.1",
            "broker:8884": f"localhost:{self.ports['workers']}",
            "8883": self.ports["devices"],
            "8884": self.ports["workers"],
            "8080": self.ports["api"],
            "9100": self.ports["metrics"],
        }.items():
            text = text.replace(inside, str(outside))
        return text

    def configure(self) -> None:
        """Put the configurations where the services' users find them, as Compose does."""
        for config in (one for name in compose()["services"] for one in service(name).get("configs", [])):
            file = ROOT / compose()["configs"][config["source"]]["file"]
            (self.folder / file.name).write_text(self.here(file.read_text()))

    def environment(self, name: str, **changed: str) -> dict[str, str]:
        """Give all variables that a service sees."""
        said = {key: self.here(str(value)) for key, value in service(name).get("environment", {}).items()}
        broker = MOSQUITTO_21 or f"{servers.apache_root()}/usr/sbin"
        path = f"{broker}:{self.programs}:{self.servers}/usr/lib/postgresql/17/bin:{os.defpath}"
        own = {"PATH": path, "HOME": "/nonexistent", "PGPORT": str(self.ports["database"])}
        image = dict(word.split("=", 1) for word in dict(dockerfile())["ENV"].split() if "LOG" in word)
        return own | image | said | changed

    def options(self, name: str, **changed: str) -> dict[str, Any]:
        """Give how a service's processes start: as an ordinary user, where nothing can be written."""
        account = servers.ACCOUNT.popen_options() if servers.ACCOUNT else {}
        return {"env": self.environment(name, **changed), "cwd": self.root, **account}

    def words(self, name: str) -> list[str]:
        """Give a service's command."""
        return [self.here(word) for word in command(name)]

    def job(self, name: str) -> str:
        """Run a job to its end; give what it says."""
        result = subprocess.run(
            self.words(name), capture_output=True, text=True, check=False, timeout=50, **self.options(name)
        )
        assert result.returncode == 0, result.stderr
        return str(result.stdout)

    @contextlib.contextmanager
    def running(
        self,
        name: str,
        log: str = "",
        words: list[str] | None = None,
        changed: Mapping[str, str] | None = None,
    ) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """Run a service until the end of the block; give its process and its log."""
        log_file = self.folder / f"{log or name}.log"
        signals = {"database": signal.SIGINT}
        with log_file.open("ab") as output:
            process = subprocess.Popen(
                words or self.words(name),
                stdout=output,
                stderr=output,
                **self.options(name, **(changed or {})),
            )
        try:
            yield process, log_file
        finally:
            if process.poll() is None:
                process.send_signal(signals.get(name, signal.SIGTERM))
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    def healthy(self, name: str, **changed: str) -> bool:
        """Tell what the service's health check finds."""
        kind, *words = (self.here(word) for word in service(name)["healthcheck"]["test"])
        words = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        result = subprocess.run(
            words, capture_output=True, check=False, timeout=20, **self.options(name, **changed)
        )
        return result.returncode == 0

    def wait_healthy(self, name: str, log_file: Path, **changed: str) -> None:
        """Wait until the health check is content."""
        wait_until(lambda: self.healthy(name, **changed), log_file)

    def initialise_database(self) -> None:
        """Do what the image does at its first start: a data folder, by the arguments that it is given."""
        said = service("database")["environment"]
        assert said["POSTGRES_PASSWORD_FILE"] == "/run/secrets/postgres_password"
        subprocess.run(
            [
                *("initdb", f"--pgdata={self.writable['database']}/data", "--username=postgres"),
                *(f"--pwfile={self.secrets}/postgres_password", "--auth=scram-sha-256"),
                *shlex.split(said["POSTGRES_INITDB_ARGS"]),
            ],
            check=True,
            capture_output=True,
            **self.options("database"),
        )

    def database_words(self) -> list[str]:
        """Give the server's command, and what else the image has in its configuration."""
        own = {
            "port": self.ports["database"],
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "shared_preload_libraries": "timescaledb",
            "fsync": "off",
        }
        more = [f"-c{name}={value}" for name, value in own.items()]
        return [*self.words("database"), "-D", f"{self.writable['database']}/data", *more]

    def superuser(self, database: str = "fleetwatt") -> psycopg.Connection[tuple[Any, ...]]:
        """Connect as the image's superuser."""
        password = (self.secrets / "postgres_password").read_text().strip()
        url = f"postgresql://postgres@127.0.0.1:{self.ports['database']}/{database}"
        return psycopg.connect(url, password=password, autocommit=True)

    def configure_broker(self) -> None:
        """Have the broker find its plugin; Mosquitto 2.0 keeps what waits in a file of its own instead."""
        conf = self.folder / "mosquitto.conf"
        text = conf.read_text().replace("/usr/lib/mosquitto_persist", f"{MOSQUITTO_21}/mosquitto_persist")
        if not MOSQUITTO_21:
            lines = [line for line in text.splitlines() if not line.startswith(("plugin", "persistence"))]
            kept = ["persistence true", f"persistence_location {self.writable['broker']}/"]
            text = "\n".join([*lines, *kept, ""])
        conf.write_text(text)

    def add_device(self, user: str, password: str) -> None:
        """Add a user to the running broker's file, as docs/containers.md says."""
        tool = f"{MOSQUITTO_21 or servers.apache_root() / 'usr/bin'}/mosquitto_passwd"
        words = [tool, "-b", f"{self.writable['broker']}/passwords", user, password]
        subprocess.run(words, check=True, capture_output=True, **self.options("broker"))

    def api(self, key: str) -> httpx.Client:
        """Give a client of the API that shows a key of the secrets."""
        token = (self.secrets / f"{key}_key").read_text().strip()
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.ports['api']}",
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=_PATIENCE_S,
        )


def wait_until(happened: Any, log_file: Path) -> None:
    """Wait until something is so; only a failing test waits long."""
    deadline = time.monotonic() + _PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, log_file.read_text()[-3000:]
        time.sleep(0.1)

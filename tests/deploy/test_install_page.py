"""docs/install.md, command by command, outside of the checkout: installed, run by the units, upgraded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.containers import wait_until
from tests.deploy.units import Box
from tests.docs.pages import blocks
from tests.support import doctor, servers
from tests.support.servers import Postgres, free_port

pytestmark = pytest.mark.timeout(300)

PAGE = "docs/install.md"
PROGRAM, ACCOUNT, ONE_BOX, SECRETS, OWN_SERVERS, UPGRADE, BACK = (block.text for block in blocks(PAGE, "sh"))


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """Give a machine on which the program is installed, with units and settings."""
    with servers.scratch_dir() as folder:
        box = Box(folder)
        install = PROGRAM.replace(" tracing ", " '' ")
        try:
            # What is in uv's cache is as good; where it is not all there, a package index has to be asked.
            box.run(install, UV_OFFLINE="1")
        except AssertionError:
            box.run(install)
        box.run(ACCOUNT)
        yield box


def ready(address: str, log_file: Path) -> None:
    """Wait until a service answers that it is ready."""

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/health/ready", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    wait_until(answers, log_file)


def test_it_is_installed_by_the_lock(box: Box) -> None:
    """What only tests need is not there; the account is asked for; a release has a folder of its own."""
    assert box.run("fleetwatt --version").startswith("fleetwatt, version")
    packages = {file.name.split("-")[0] for file in (box.folder / "opt").rglob("*.dist-info")}
    assert {"fleetwatt", "litestar", "psycopg"} <= packages
    assert not {"pytest", "ruff", "playwright", "uv"} & packages
    assert any(line.startswith("useradd --system") for line in box.asked())
    assert "systemctl daemon-reload" in box.asked()
    with pytest.raises(AssertionError, match="is there already"):
        box.run("deploy/install.sh /opt/fleetwatt/0.1.0")


def test_all_on_one_machine(box: Box) -> None:
    """`up` is ready when it says so, is found by root's command, ends in order; large logs are rotated."""
    ports = {
        f"--{name}-port {port}": f"--{name}-port {free_port()}"
        for name, port in (("http", 8080), ("mqtt", 1883))
    }
    unit = Path(box.here("/etc/systemd/system/fleetwatt.service"))
    for standing, here in ports.items():
        assert standing in unit.read_text()
        unit.write_text(unit.read_text().replace(standing, here))
    install, start, status = ONE_BOX.splitlines()
    assert "servers: " in box.run(install)
    box.run(start)
    assert box.asked()[-1] == "systemctl enable --now fleetwatt"
    for name in ("data", "data/logs"):
        (box.data / name).mkdir()
    (box.data / "data/lock").touch()
    (box.data / "data/logs/worker.log").write_text("said\n" * 4_000_000)
    box.run("chown --recursive --reference=/var/lib/fleetwatt /var/lib/fleetwatt/data")
    with box.running("fleetwatt.service"):
        told = json.loads(box.run(status.replace("status", "status --json")))
        assert httpx.get(f"{told['http']}/health/ready", trust_env=False).is_success
    log = box.data / "data/logs/worker.log"
    assert log.stat().st_size < 100_000
    assert log.with_name("worker.log.1").stat().st_size == 20_000_000
    assert "stopped in" in (box.folder / "fleetwatt.service-.log").read_text()


def test_beside_servers_of_ones_own(box: Box, running_servers: dict[str, Postgres]) -> None:
    """Service and worker run on them, with secrets that others cannot read; upgraded, and back."""
    server, port = running_servers["apache"], free_port()
    settings = Path(box.here("/etc/fleetwatt/settings"))
    with server.database(empty=True) as name, doctor.good_broker() as (broker, _):
        box.run(SECRETS)
        addresses = {"owner": "postgres", "service": "fleetwatt_service"}
        for whose, role in addresses.items():
            file = Path(box.here(f"/etc/fleetwatt/{whose}_database_url"))
            file.write_text(server.url(role, name))
            assert file.stat().st_mode & 0o777 == {"owner": 0o600, "service": 0o640}[whose]
        settings.write_text(
            f"{settings.read_text()}\nFLEETWATT_MQTT_URL=mqtt://127.0.0.1:{broker}\nFLEETWATT_HTTP_PORT={port}\n"
            "FLEETWATT_CHUNK_HOURS=12\n"
        )
        set_up, start, look = OWN_SERVERS.replace("'...'", f"'{servers.PASSWORD}'").partition(
            "systemctl enable --now fleetwatt-serve fleetwatt-worker@0\n"
        )
        told = box.run(set_up)
        assert "chunks of 12 h" in told
        box.run(start)
        unused = {"FLEETWATT_WORKER_METRICS_PORT": str(free_port())}

        def run_and_look() -> None:
            with (
                box.running("fleetwatt-serve.service") as log_file,
                box.running("fleetwatt-worker@.service", "0", **unused) as worker_log,
            ):
                ready(f"http://127.0.0.1:{port}", log_file)
                assert '"client_id": "fleetwatt-0"' in worker_log.read_text()
                # The tests' database does without what makes it durable.
                found = json.loads(box.run(look.replace("doctor", "doctor --json || true")))["findings"]
                assert {one["check"] for one in found if one["severity"] == "error"} <= {"durability"}

        run_and_look()
        next_one, _, look = UPGRADE.replace(" tracing", " ''").partition(
            "systemctl start fleetwatt-serve fleetwatt-worker@0\n"
        )
        told = box.run(next_one, UV_OFFLINE="1")
        assert "already current" in told
        assert "lifecycle: " not in told, "the settings are those of before"
        current = Path(box.here("/opt/fleetwatt/current"))
        assert current.resolve().name == "0.2.0"
        run_and_look()
        box.run(BACK)
        assert current.resolve().name == "0.1.0"
        assert box.asked()[-1] == "systemctl start fleetwatt-serve fleetwatt-worker@0"

"""deploy/mosquitto/README.md: whoever types its commands gets there, and no change loses a reading."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Iterator

import pytest

from service.settings import Settings
from tests.support.deployed_readme import Readme, readme
from tests.support.mqtt import DUPLICATES, METERS, eventually, until_ready
from tests.support.strategies import Owner, encode, meter, rows

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here"),
    pytest.mark.parametrize("edition", ["apache"]),  # nothing here depends on it
]

# What the broker says of files whose owner or mode is wrong.
_REFUSED = "Future versions will refuse"


@pytest.fixture
def machine(settings: Settings) -> Iterator[Readme]:
    """Give a machine on which nothing was done yet."""
    with readme(settings.database_url) as machine:
        yield machine


async def test_from_nothing_to_the_first_reading(machine: Readme, owner: Owner, ready: socket.socket) -> None:
    """Every command of the steps works, in their order, and nothing secret is left for all to read."""
    await machine.set_up()
    async with machine.worker():
        await until_ready(ready)
        publish, look = machine.commands("**6. A reading**")
        assert await machine.run(publish) == ""
        await eventually(owner, METERS, 1)
        assert "METER-001" in await machine.run(look)
    assert _REFUSED not in (machine.folder / "log").read_text()
    open_files = {
        file.name
        for file in machine.folder.rglob("*")
        if file.is_file() and file.stat().st_mode & 0o077 and {"bin"}.isdisjoint(file.parts)
    }
    assert open_files <= {"mosquitto.conf", "fleetwatt.conf", "log", "output", "pid", "worker.log"}
    service = (machine.folder / "etc/systemd/system/mosquitto.service.d/fleetwatt.conf").read_text()
    assert "\nExecReload=\n" in service


async def test_a_change_while_the_worker_is_away_loses_nothing(
    machine: Readme, owner: Owner, ready: socket.socket
) -> None:
    """Devices come and go and certificates are renewed, by the page's commands, and what waits is kept."""
    await machine.set_up()
    async with machine.worker():
        await until_ready(ready)
    sent = 0

    async def publish(user: str, password: str = "") -> None:
        nonlocal sent
        name = user.partition("/")[2]
        async with machine.device(user, password) as client:
            for _ in range(5):
                sent += 1
                assert await client.publish(f"telemetry/{user}", encode(meter(name, sent))) == 0

    await publish("meter/METER-001")
    serial = await _serial(machine)
    for change in ("**A device more**", "**Many devices at once**", "**A device less**"):
        await machine.run(*machine.commands(change))
        await publish("meter/METER-001")
        await publish("meter/METER-002")
    new = dict(
        line.split(":", 1)
        for line in (machine.folder / "root/fleetwatt-passwords/new").read_text().splitlines()
    )
    for user, password in new.items():
        await publish(user, password)
    assert len(new) == 2
    with pytest.raises(AssertionError):
        async with machine.device("vehicle/VH-001"):
            pass
    renew = machine.commands("**2. Certificates.**")[1]
    await machine.run(renew, *machine.commands("**4. Start.**"))
    assert await _serial(machine) != serial
    await publish("meter/METER-002")
    async with machine.worker():
        await until_ready(ready)
        await eventually(owner, METERS, sent)
    assert await rows(owner, DUPLICATES) == [{"n": 0}]
    assert _REFUSED not in (machine.folder / "log").read_text()


async def test_a_forbidden_topic(machine: Readme) -> None:
    """MQTT 3.1.1 has no word for it, MQTT 5 has, and log_type debug tells; as the page says."""
    await machine.set_up()
    configuration = machine.folder / "etc/mosquitto/mosquitto.conf"
    configuration.write_text(configuration.read_text() + "log_type debug\n")
    await machine.run("systemctl restart mosquitto")
    publish, _ = machine.commands("**6. A reading**")
    wrong = publish.replace("telemetry/meter/METER-001", "telemetry/meter/METER-002")
    assert "Not authorized" in await machine.run(f"({wrong}) 2>&1 || true")
    assert await machine.run(wrong.replace("-V 5 ", "")) == ""
    log = (machine.folder / "log").read_text()
    assert "Denied PUBLISH from meter/METER-001" in log


async def _serial(machine: Readme) -> object:
    _, writer = await asyncio.open_connection("localhost", machine.devices, ssl=machine.context())
    certificate = writer.get_extra_info("peercert")
    writer.transport.abort()
    return certificate["serialNumber"]

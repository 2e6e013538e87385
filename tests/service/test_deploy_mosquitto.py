"""The broker of deploy/mosquitto: devices and workers get through."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator

import msgspec
import pytest

from service.alerts.publisher import Message, publish_retained
from service.broker import BrokerAddress
from service.settings import Settings
from tests.support.deployed_broker import PASSWORD, USERS, DeployedBroker, deployed_broker, device
from tests.support.mqtt import (
    DUPLICATES,
    METER,
    METERS,
    VEHICLE,
    VEHICLES,
    consuming,
    eventually,
    worker_process,
)
from tests.support.mqtt_raw import NOT_AUTHORISED, RawClient
from tests.support.strategies import Owner, encode, meter, rows, vehicle

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]


def _certificate_lines(broker: DeployedBroker) -> list[str]:
    ca_file = f"cafile {broker.folder}/certs/services-ca.crt"
    return [ca_file, "require_certificate true", "use_identity_as_username true"]


@pytest.fixture
def deployed() -> Iterator[DeployedBroker]:
    """Give a running broker of the deployment."""
    with deployed_broker() as broker, broker.running():
        yield broker


def _settings(settings: Settings, broker: DeployedBroker) -> Settings:
    certificate, key = broker.services_authority.issue("worker", user="fleetwatt")
    return msgspec.structs.replace(
        settings,
        mqtt_url=f"mqtts://localhost:{broker.services}",
        mqtt_ca_file=str(broker.authority.file),
        mqtt_client_cert_file=str(certificate),
        mqtt_client_key_file=str(key),
        mqtt_share="",
        mqtt_client_id="fleetwatt-0",
    )


@pytest.mark.parametrize("login", ["certificate", "password"])
@pytest.mark.parametrize("edition", ["apache"])  # nothing here depends on it
async def test_good_devices_get_through(
    login: str, settings: Settings, owner: Owner, ready: socket.socket
) -> None:
    """Readings and sessions reach the database by a real worker over TLS, over a restart of the broker."""
    with deployed_broker() as broker:
        changed = _settings(settings, broker)
        if login == "password":
            # As README.md tells, for a port that devices cannot reach.
            broker.set_passwords(*USERS, "fleetwatt")
            broker.configure(**dict.fromkeys(_certificate_lines(broker), ""))
            changed = msgspec.structs.replace(
                changed,
                mqtt_user="fleetwatt",
                mqtt_password=PASSWORD,
                mqtt_client_cert_file="",
                mqtt_client_key_file="",
            )
        with broker.running():
            async with worker_process(changed, ready):
                async with device(broker) as good, device(broker, "vehicle/V-1", 4) as old:
                    for qos in (0, 1, 2):
                        assert await good.publish(f"{METER}M-1", encode(meter("M-1", qos)), qos=qos) == 0
                        assert await old.publish(f"{VEHICLE}V-1", encode(vehicle("V-1", qos)), qos=qos) == 0
                async with device(broker, "charging") as backend:
                    start = b'{"vehicleId": "V-1", "startedAt": "2020-01-01T00:00:00Z"}'
                    assert await backend.publish("sessions/M-1", start) == 0
                await eventually(owner, METERS, 3)
                await eventually(owner, VEHICLES, 3)
                await eventually(owner, "select count(*) as n from charging_session", 1)
            # The worker is down; the broker keeps what comes, over a restart, with the worker's rights.
            async with device(broker) as good:
                for minute in range(3, 50):
                    assert await good.publish(f"{METER}M-1", encode(meter("M-1", minute))) == 0
        with broker.running():
            async with device(broker) as good:
                for minute in range(50, 60):
                    assert await good.publish(f"{METER}M-1", encode(meter("M-1", minute))) == 0
            async with worker_process(changed, ready):
                await eventually(owner, METERS, 60)
    assert await rows(owner, DUPLICATES) == [{"n": 0}]


@pytest.mark.parametrize("port", ["devices", "services"])
async def test_a_worker_without_a_certificate_ends(port: str, deployed: DeployedBroker) -> None:
    """A real `fleetwatt worker` that the broker will never let in ends with status 1 and with what to do."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", "worker",
        env={
            "PATH": "/usr/bin:/bin",
            "FLEETWATT_DATABASE_URL": "postgresql://127.0.0.1:1/none",
            "FLEETWATT_MQTT_URL": f"mqtts://localhost:{getattr(deployed, port)}",
            "FLEETWATT_MQTT_CA_FILE": str(deployed.authority.file),
            "FLEETWATT_MQTT_USER": "fleetwatt",
            "FLEETWATT_MQTT_PASSWORD": PASSWORD,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(worker.communicate(), 30)
    assert worker.returncode == 1
    expected = "FLEETWATT_MQTT_PASSWORD" if port == "devices" else "FLEETWATT_MQTT_CLIENT_CERT_FILE"
    assert expected in output.decode()
    assert "Traceback" not in output.decode()


async def test_alerts_are_published(deployed: DeployedBroker) -> None:
    """The publisher of alerts may write them, and nothing else; `alerts` may read them."""
    address = BrokerAddress.of(_settings(Settings(), deployed))
    async with RawClient(deployed.devices, tls=deployed.context()) as viewer:
        assert await viewer.connect("x", ("alerts", PASSWORD)) == 0
        assert await viewer.subscribe("alerts/vehicle/+", "telemetry/+/+") == (1, 1)
        messages = [Message(topic, b"[]") for topic in ("alerts/vehicle/V-1", f"{METER}M-1", "sessions/M-1")]
        refused = await publish_retained(address, "fleetwatt-0-alerts", messages)
        assert refused == {f"{METER}M-1": NOT_AUTHORISED, "sessions/M-1": NOT_AUTHORISED}
        async with asyncio.timeout(20):
            while not viewer.received:
                await asyncio.sleep(0.02)
        assert viewer.received == [(b"alerts/vehicle/V-1", b"[]")]


async def test_a_device_cannot_steal_from_workers_that_share(
    settings: Settings, owner: Owner, ready: socket.socket, deployed: DeployedBroker
) -> None:
    """Mosquitto 2.0 lets anybody join a shared subscription whose name he knows, and drops his part.

    So the name is a secret, as README.md says: here the device guesses wrong.
    """
    changed = msgspec.structs.replace(_settings(settings, deployed), mqtt_share="5a1f0c62d7e94b38")
    async with consuming(changed, ready), device(deployed, "meter/M-2") as thief, device(deployed) as good:
        for guess in ("fleetwatt", "5a1f0c62d7e94b3", "5A1F0C62D7E94B38"):
            await thief.subscribe(f"$share/{guess}/telemetry/+/+")
        for minute in range(20):
            assert await good.publish(f"{METER}M-1", encode(meter("M-1", minute))) == 0
        await eventually(owner, METERS, 20)

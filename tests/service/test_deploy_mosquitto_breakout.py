"""A device that tries to break out of the rules of deploy/mosquitto."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator

import pytest

from tests.support.certificates import Authority
from tests.support.deployed_broker import LASTING, PASSWORD, DeployedBroker, deployed_broker, device, observer
from tests.support.mqtt import METER, VEHICLE
from tests.support.mqtt_raw import BAD_USER_OR_PASSWORD, CLOSED, NOT_AUTHORISED, RawClient
from tests.support.strategies import encode, meter

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

READING = encode(meter("M-1"))


@pytest.fixture
def deployed() -> Iterator[DeployedBroker]:
    """Give a running broker of the deployment."""
    with deployed_broker() as broker, broker.running():
        yield broker


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_device_publishes_its_own_topic_only(
    deployed: DeployedBroker, version: int, qos: int
) -> None:
    """Nothing else arrives: no other device or kind, no session, alert or will, retained or not."""
    forbidden = [
        f"{METER}M-2", f"{VEHICLE}M-1", f"{VEHICLE}V-1", f"{METER}M-1/more", f"{METER}m-1", "telemetry/meter",
        "telemetry", "sessions/M-1", "alerts/vehicle/V-1", "meter/M-1", "anything", "$SYS/broker/uptime",
        "$share/fleetwatt/telemetry/meter/M-1", f"/{METER}M-1", f"{METER}M-1/",
    ]  # fmt: skip
    async with observer(deployed) as seen:
        for topic in forbidden:
            for retain in (False, True):
                async with device(deployed, version=version) as client:
                    reason = await client.publish(topic, READING, qos=qos, retain=retain)
                    if version == 5 and qos:
                        assert reason in {NOT_AUTHORISED, CLOSED}, topic
        for topic in (f"{METER}M-2", "sessions/M-1", "alerts/vehicle/V-1"):
            async with RawClient(deployed.devices, version=version, tls=deployed.context()) as client:
                # Its will goes out when it is gone without a farewell.
                await client.connect("x", ("meter/M-1", PASSWORD), will=(topic, READING))
        async with device(deployed, version=version) as client:
            assert await client.publish(f"{METER}M-1", READING, qos=qos) == 0
        await asyncio.sleep(0.2)
        assert [topic for topic, _ in seen.received] == [f"{METER}M-1".encode()]
    async with observer(deployed) as seen:
        await asyncio.sleep(0.2)
        assert seen.received == []


@pytest.mark.parametrize("version", [4, 5])
async def test_a_device_reads_nothing(deployed: DeployedBroker, version: int) -> None:
    """Whatever it subscribes to, nothing is delivered, not even its own, alerts, or what is retained."""
    filters = [
        "#",
        "telemetry/#",
        f"{METER}M-1",
        "sessions/+",
        "alerts/#",
        "$SYS/#",
        "+/+/+",
        "alerts/vehicle/V-1",
    ]
    async with RawClient(deployed.services, tls=deployed.context("fleetwatt")) as service:
        assert await service.connect("fleetwatt-0-alerts") == 0
        assert await service.publish("alerts/vehicle/V-1", b"{}", retain=True) in {0, 16}
        async with device(deployed, version=version) as spy, device(deployed, "meter/M-2") as other:
            await spy.subscribe(*filters)
            await other.publish(f"{METER}M-2", READING)
            await spy.publish(f"{METER}M-1", READING)
            await service.publish("alerts/vehicle/V-1", b"{}")
            await asyncio.sleep(0.5)
            assert spy.received == []


async def test_a_device_cannot_take_over_a_session(deployed: DeployedBroker) -> None:
    """Asking for the client id of a worker, or of another device, gives neither its session nor its place."""
    async with observer(deployed) as worker, device(deployed, "meter/M-2") as other:
        for client_id in ("observer", "meter/M-2", "fleetwatt-0"):
            async with RawClient(deployed.devices, tls=deployed.context()) as thief:
                login = ("meter/M-1", PASSWORD)
                assert await thief.connect(client_id, login, clean=False, properties=LASTING) == 0
                assert await thief.publish(f"{METER}M-1", READING) == 0
                assert thief.received == []
        assert await other.publish(f"{METER}M-2", READING) == 0
        await asyncio.sleep(0.2)
        assert len(worker.received) == 4


async def test_logins(deployed: DeployedBroker) -> None:
    """No login, a wrong one, a password instead of a certificate, no TLS or an old one: nobody gets in."""
    for port, login in [
        (deployed.devices, None),
        (deployed.devices, ("meter/M-1", None)),
        (deployed.devices, ("meter/M-1", "")),
        (deployed.devices, ("meter/M-1", "wrong")),
        (deployed.devices, ("", PASSWORD)),
        (deployed.devices, ("meter/M-3", PASSWORD)),
        (deployed.devices, ("fleetwatt", PASSWORD)),
        (deployed.devices, ("fleetwatt", None)),
        (deployed.services, None),
        (deployed.services, ("meter/M-1", PASSWORD)),
        (deployed.services, ("fleetwatt", PASSWORD)),
    ]:
        for version in (4, 5):
            async with RawClient(port, version=version, tls=deployed.context()) as client:
                assert await client.connect("fleetwatt-0", login) in {
                    4,
                    5,
                    BAD_USER_OR_PASSWORD,
                    NOT_AUTHORISED,
                    CLOSED,
                }
    for port in (deployed.devices, deployed.services):
        async with RawClient(port) as client:
            assert await client.connect("x", ("meter/M-1", PASSWORD)) == CLOSED
        old = deployed.context()
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with RawClient(port, tls=old):
                pass
    # A certificate of the authority that signed the broker's own, and one of a stranger's.
    for authority in (deployed.authority, Authority(deployed.folder, "stranger")):
        context = deployed.context()
        context.load_cert_chain(*authority.issue("other", user="fleetwatt"))
        async with RawClient(deployed.services, tls=context) as client:
            assert await client.connect("fleetwatt-0") == CLOSED


async def test_user_names_with_wildcards(deployed: DeployedBroker) -> None:
    """A user name is a part of a topic: one with wildcards may do nothing, one level less is of no use."""
    async with observer(deployed) as seen:
        for user in ("meter/+", "meter/#", "telemetry"):
            for topic in (f"{METER}M-1", "telemetry/meter/+", "telemetry/meter/#", "sessions/M-1", METER):
                async with device(deployed, user) as client:
                    assert await client.publish(topic, READING) in {NOT_AUTHORISED, CLOSED}
        assert seen.received == []


async def test_a_large_message_is_refused_to_its_sender(deployed: DeployedBroker) -> None:
    """What is too large is not taken and lost: the publisher is disconnected."""
    async with observer(deployed) as seen, device(deployed) as client:
        assert await client.publish(f"{METER}M-1", READING + b" " * 300_000) == CLOSED
        assert seen.received == []

"""TLS and credentials of the broker by settings: who is let in, who is refused, and in what words."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from service import settings as settings_module
from service.broker import BrokerAddress, BrokerRefusedError
from service.errors import SettingsError
from service.ingest.mqtt import Consumer
from service.ingest.pipeline import Pipeline
from service.settings import Settings, describe
from tests.support import servers
from tests.support.certificates import Authority
from tests.support.mqtt import (
    METER,
    METERS,
    PATIENCE_S,
    broker,
    consuming,
    eventually,
    listening,
    until_ready,
)
from tests.support.mqtt_raw import RawClient
from tests.support.strategies import Owner, encode, meter

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

NOWHERE = "postgresql://127.0.0.1:1/none"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that the broker can read."""
    with servers.scratch_dir() as scratch:
        yield scratch


def _tls(certificate: Path, key: Path, *more: str) -> str:
    return "\n".join(["allow_anonymous true", f"certfile {certificate}", f"keyfile {key}", *more, ""])


async def _consume(settings: Settings, ready: socket.socket) -> None:
    """Run a consumer until it has subscribed, or raise what ends it."""
    stop = asyncio.Event()
    async with Pipeline(settings, "test") as pipeline, asyncio.timeout(PATIENCE_S):
        consumer = asyncio.create_task(Consumer(settings, pipeline).run(stop))
        subscribed = asyncio.create_task(until_ready(ready))
        await asyncio.wait({consumer, subscribed}, return_when=asyncio.FIRST_COMPLETED)
        subscribed.cancel()
        stop.set()
        await consumer


@pytest.mark.parametrize("edition", ["apache"])  # nothing here depends on it
@pytest.mark.parametrize("keys", ["apart", "together"])
async def test_a_reading_over_tls_with_a_client_certificate(
    keys: str, settings: Settings, owner: Owner, ready: socket.socket, folder: Path
) -> None:
    """CA and client certificate from the settings; the key in a file of its own or beside the certificate."""
    authority = Authority(folder)
    certificate, key = authority.issue("worker", user="fleetwatt")
    if keys == "together":
        certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    port = servers.free_port()
    lines = _tls(
        *authority.issue("broker", "localhost"), f"cafile {authority.file}", "require_certificate true"
    )
    changed = msgspec.structs.replace(
        settings,
        mqtt_url=f"mqtts://localhost:{port}",
        mqtt_ca_file=str(authority.file),
        mqtt_client_cert_file=str(certificate),
        mqtt_client_key_file=str(key) if keys == "apart" else "",
    )
    with broker(folder, port, lines):
        await listening(port)
        async with consuming(changed, ready):
            context = ssl.create_default_context(cafile=str(authority.file))
            context.load_cert_chain(certificate, key)
            async with RawClient(port, tls=context) as device:
                assert await device.connect("device") == 0
                assert await device.publish(f"{METER}m-1", encode(meter())) == 0
            await eventually(owner, METERS, 1)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("other authority", "FLEETWATT_MQTT_CA_FILE"),
        ("other host", r"'localhost'\. Set .* must be a name in the certificate"),
        ("expired", "expired"),
        ("no client certificate", "FLEETWATT_MQTT_CLIENT_CERT_FILE"),
        ("client of another authority", "FLEETWATT_MQTT_CLIENT_CERT_FILE"),
    ],
)
async def test_tls_that_fails_at_start_ends_the_worker(
    case: str, expected: str, ready: socket.socket, folder: Path
) -> None:
    """A broker that cannot be trusted, or does not trust us, ends the process with what to do."""
    authority, other = Authority(folder), Authority(folder, "other")
    host = "elsewhere.example" if case == "other host" else "localhost"
    more = [f"cafile {authority.file}", "require_certificate true"] if "client" in case else []
    lines = _tls(*authority.issue("broker", host, expired=case == "expired"), *more)
    port = servers.free_port()
    settings = Settings(
        database_url=NOWHERE,
        mqtt_url=f"mqtts://localhost:{port}",
        mqtt_ca_file=str((other if case == "other authority" else authority).file),
    )
    if case == "client of another authority":
        certificate, key = other.issue("stranger", user="fleetwatt")
        settings = msgspec.structs.replace(
            settings, mqtt_client_cert_file=str(certificate), mqtt_client_key_file=str(key)
        )
    with broker(folder, port, lines):
        await listening(port)
        with pytest.raises(BrokerRefusedError, match=expected):
            await _consume(settings, ready)


async def test_what_speaks_no_tls_is_told(ready: socket.socket) -> None:
    """A port where something else answers is most likely the wrong one."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = Settings(database_url=NOWHERE, mqtt_url=f"mqtts://127.0.0.1:{port}")
        with pytest.raises(BrokerRefusedError, match="is that its TLS port"):
            await _consume(settings, ready)


async def test_a_certificate_that_goes_bad_later_is_waited_out(folder: Path) -> None:
    """What worked before is tried again: the broker's certificate is renewed, and the worker is back."""
    authority = Authority(folder)
    port = servers.free_port()
    settings = Settings(
        database_url=NOWHERE, mqtt_url=f"mqtts://localhost:{port}", mqtt_ca_file=str(authority.file)
    )
    stop = asyncio.Event()
    good = _tls(*authority.issue("good", "localhost"))
    bad = _tls(*authority.issue("bad", "localhost", expired=True))
    with capture_logs() as logged:
        async with Pipeline(settings, "test") as pipeline:
            consumer = asyncio.create_task(Consumer(settings, pipeline).run(stop))
            for number, lines in enumerate((good, bad, good)):
                with contextlib.ExitStack() as stack:
                    stack.enter_context(broker(folder, port, lines))
                    await listening(port)
                    async with asyncio.timeout(PATIENCE_S):
                        while not _told(logged, number):
                            await asyncio.sleep(0.02)
                    assert not consumer.done()
                    await asyncio.to_thread(stack.close)
            stop.set()
            await consumer


def _told(logged: Sequence[Mapping[str, Any]], number: int) -> bool:
    """Tell whether the consumer is in the state that it should be in with the broker of a number."""
    accepted = [event for event in logged if event["event"] == "broker_connected"]
    expired = [event for event in logged if "has expired" in event.get("error", "")]
    return (len(accepted), bool(expired)) == [(1, False), (1, True), (2, True)][number]


@pytest.mark.parametrize("login", ["nobody", "wrong password"])
async def test_refused_credentials_end_the_process(login: str, folder: Path) -> None:
    """A real `fleetwatt worker` ends with status 1 and one line that says which settings to check."""
    port = servers.free_port()
    passwords = folder / "passwords"
    passwords.write_text("fleetwatt:right\n")
    secret = folder / "secret"
    secret.write_text("s3cret\n")
    tool = str(servers.apache_root() / "usr/bin/mosquitto_passwd")
    hashing = await asyncio.create_subprocess_exec(
        tool, "-U", str(passwords), stderr=asyncio.subprocess.DEVNULL
    )
    assert await hashing.wait() == 0
    passwords.chmod(0o644)
    with broker(folder, port, f"allow_anonymous false\npassword_file {passwords}\n"):
        await listening(port)
        environment = {
            "FLEETWATT_DATABASE_URL": NOWHERE,
            "FLEETWATT_MQTT_URL": f"mqtt://127.0.0.1:{port}",
        }
        if login != "nobody":
            environment |= {
                "FLEETWATT_MQTT_USER": "fleetwatt",
                "FLEETWATT_MQTT_PASSWORD_FILE": str(secret),
            }
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", "worker",
            env={"PATH": "/usr/bin:/bin", **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await asyncio.wait_for(worker.communicate(), PATIENCE_S)
    assert worker.returncode == 1
    assert "FLEETWATT_MQTT_PASSWORD" in output.decode()
    assert "s3cret" not in output.decode()
    assert "Traceback" not in output.decode()


def _settings(**changed: Any) -> Settings:
    return Settings(mqtt_url="mqtts://broker.example", **changed)


def test_login_from_url_and_settings() -> None:
    """The URL's login goes first; the settings give what it leaves out; nothing shows the password."""
    for url, expected in {
        "mqtt://broker": ("me", "s3cret"),
        "mqtt://you:s3cret-too@broker": ("you", "s3cret-too"),
        "mqtt://you@broker": ("you", "s3cret"),
    }.items():
        settings = Settings(mqtt_url=url, mqtt_user="me", mqtt_password="s3cret")
        address = BrokerAddress.of(settings)
        assert (address.user, address.password) == expected
        assert "s3cret" not in f"{address} {address!r} {describe(settings)}"


def test_password_from_a_file(tmp_path: Path) -> None:
    """FLEETWATT_MQTT_PASSWORD_FILE gives the password; one that cannot be read is named."""
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    loaded = settings_module.load({"FLEETWATT_MQTT_PASSWORD_FILE": str(file)})
    assert loaded.mqtt_password == "s3cret"
    with pytest.raises(SettingsError, match="FLEETWATT_MQTT_PASSWORD_FILE"):
        settings_module.load({"FLEETWATT_MQTT_PASSWORD_FILE": str(tmp_path / "none")})


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    """Files that are missing, are no PEM or do not match, and settings that do not go together, are named."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("one", "localhost")
    _, other_key = authority.issue("two", "localhost")
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    none = str(tmp_path / "none")
    for changed, name in [
        ({"mqtt_ca_file": none}, "FLEETWATT_MQTT_CA_FILE.*none"),
        ({"mqtt_ca_file": str(junk)}, "FLEETWATT_MQTT_CA_FILE.*junk"),
        ({"mqtt_client_cert_file": none}, "FLEETWATT_MQTT_CLIENT_CERT_FILE.*none"),
        ({"mqtt_client_cert_file": str(certificate)}, "FLEETWATT_MQTT_CLIENT_KEY_FILE"),
        ({"mqtt_client_cert_file": str(certificate), "mqtt_client_key_file": none}, "KEY_FILE.*none"),
        ({"mqtt_client_cert_file": str(certificate), "mqtt_client_key_file": str(other_key)}, "do not match"),
        ({"mqtt_client_key_file": str(key)}, "FLEETWATT_MQTT_CLIENT_CERT_FILE"),
        ({"mqtt_password": "s3cret"}, "FLEETWATT_MQTT_USER"),
        ({"mqtt_url": "mqtt://broker", "mqtt_ca_file": str(authority.file)}, "FLEETWATT_MQTT_CA_FILE"),
    ]:
        with pytest.raises(SettingsError, match=name) as refused:
            BrokerAddress.of(msgspec.structs.replace(_settings(), **changed))
        assert "s3cret" not in str(refused.value)


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    """A key that would make OpenSSL ask on the terminal is an error instead."""
    certificate, key = Authority(tmp_path).issue("one", "localhost")
    locked = tmp_path / "locked.key"
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    with pytest.raises(SettingsError, match="passphrase"):
        BrokerAddress.of(_settings(mqtt_client_cert_file=str(certificate), mqtt_client_key_file=str(locked)))

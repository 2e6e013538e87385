"""`fleetwatt doctor` on brokers, replicas and a running engine, and as a command."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gmqtt
import msgspec
import psycopg
import pytest
from click.testing import CliRunner
from gmqtt.mqtt.constants import MQTTv50

from service.cli import group
from service.doctor import broker
from service.doctor.examine import examine
from service.doctor.finding import Patient
from service.settings import Settings
from tests.support import servers
from tests.support.doctor import found, has, running_broker
from tests.support.replica import running_pair

pytestmark = pytest.mark.timeout(120)


def test_replicas(settings: Settings) -> None:
    """A replica that is away, and a server that is none, are told."""

    def told(url: str) -> str:
        report = examine(Patient(settings=msgspec.structs.replace(settings, read_database_url=url)))
        return next(finding.what for finding in report.findings if finding.check == "replica")

    assert "no replica" in told(settings.database_url)
    assert "does not answer" in told(f"postgresql://u:secret@127.0.0.1:{servers.free_port()}/d")
    assert "cannot be read" in told("postgresql://u:secret@h:port/d")


def test_a_replica_that_keeps_up() -> None:
    """Of one that streams there is nothing to tell."""
    # Background workers look into the template while it is to be cloned.
    quiet = {"timescaledb.max_background_workers": "0"}
    with running_pair(servers.apache_root(), changed=quiet) as (pair, primary), primary.database() as name:
        pair.caught_up()
        url = primary.url("fleetwatt_service", name)
        replica = url.replace(f":{primary.port}/", f":{pair.replica.port}/")
        settings = Settings(database_url=url, read_database_url=replica)
        assert "replica" not in {check for _, check in found(examine(Patient(settings=settings)))}


def test_a_broker_that_retains_nothing() -> None:
    """What a broker refuses by its CONNACK is told also where it tells nothing of itself."""
    with running_broker("allow_anonymous true\nretain_available false\nlistener {port} 127.0.0.1\n") as (
        port,
        _,
    ):
        report = examine(Patient(settings=Settings(mqtt_url=f"mqtt://127.0.0.1:{port}")))
    assert has(report, "broker", "no retained messages").severity == "error"


@pytest.mark.anyio
async def test_it_leaves_sessions_alone() -> None:
    """Where the broker makes the user the client id, what waits for that user is still there afterwards."""
    text = "allow_anonymous true\nlistener {port} 127.0.0.1\nuse_username_as_clientid true\n"
    with running_broker(text) as (port, _):

        async def connect(user: str) -> tuple[gmqtt.Client, list[bytes]]:
            client = gmqtt.Client(user, clean_session=False, session_expiry_interval=600)
            client.set_auth_credentials(user, None)
            heard: list[bytes] = []

            async def on_message(_c: Any, _t: str, payload: bytes, _q: int, _p: Any) -> int:
                heard.append(payload)
                return 0

            client.on_message = on_message
            await client.connect("127.0.0.1", port, version=MQTTv50)
            return client, heard

        worker, _ = await connect("fleetwatt")
        worker.subscribe("telemetry/+/+", qos=1)
        await asyncio.sleep(0.2)
        await worker.disconnect()
        device, _ = await connect("device")
        device.publish("telemetry/meter/m-1", b"reading", qos=1)
        await asyncio.sleep(0.2)
        await device.disconnect()
        seen = await broker.see(Settings(mqtt_url=f"mqtt://fleetwatt@127.0.0.1:{port}"))
        assert seen.session_was_there
        worker, heard = await connect("fleetwatt")
        for _ in range(100):
            if heard:
                break
            await asyncio.sleep(0.05)
        assert heard == [b"reading"]
        await worker.disconnect()


@pytest.mark.anyio
async def test_it_leaves_no_session(broker_port: int) -> None:
    """The session of a look ends with it."""
    settings = Settings(mqtt_url=f"mqtt://127.0.0.1:{broker_port}")
    first = await broker.see(settings)
    assert first.told["$SYS/broker/version"].startswith("mosquitto version")
    assert not first.session_was_there


@pytest.mark.anyio
async def test_a_shorter_session_is_seen() -> None:
    """A broker that grants less than was asked for says so in its CONNACK; Mosquitto 2.0 grants all."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        # No session, success, five bytes of properties: a session expiry (MQTT 5, 3.2.2.3.2) of an hour.
        writer.write(bytes([0x20, 8, 0, 0, 5, 17]) + (3600).to_bytes(4, "big"))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        seen = await broker.see(Settings(mqtt_url=f"mqtt://127.0.0.1:{port}"))
    assert seen.granted == {"session_expiry_interval": 3600}


def check_the_command(fleetwatt: Any, environment: dict[str, str]) -> None:
    """Run what the doctor says to do, as it stands, and see that it helps."""
    [address] = [json.loads(fleetwatt("status", "--json").stdout)["database"]]
    with psycopg.connect(address, autocommit=True) as owner:
        owner.execute("grant select on charging_session to public")
    [finding] = json.loads(fleetwatt("doctor", "--json").stdout)["findings"]
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    subprocess.run(
        ["bash", "-c", finding["command"]], check=True, env={**environment, "PATH": path}, timeout=60
    )
    assert fleetwatt("doctor").returncode == 0


def test_a_running_engine_is_sound() -> None:
    """Of `fleetwatt up`, without any setting, database, broker, its configuration and disk are looked at."""
    with servers.scratch_dir() as scratch:
        environment = {**os.environ, "FLEETWATT_DATA_DIR": str(scratch / "data")}

        def fleetwatt(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "service", *arguments]
            return subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=100, env=environment
            )

        started = fleetwatt("up", "--detach")
        assert started.returncode == 0, started.stderr
        try:
            result = fleetwatt("doctor")
            assert (result.returncode, result.stderr) == (0, ""), result.stdout
            assert result.stdout.endswith("nothing to do\n")
            check_the_command(fleetwatt, environment)
            configuration = scratch / "data/mosquitto/mosquitto.conf"
            configuration.write_text(
                configuration.read_text().replace("persistence true", "persistence false")
            )
            result = fleetwatt("doctor")
            assert result.returncode == 2, result.stdout
            assert "persistence false in mosquitto.conf" in result.stdout
        finally:
            fleetwatt("down")
        result = fleetwatt("doctor")
        assert result.returncode == 2
        assert "fleetwatt up --detach" in result.stdout


def test_the_command(settings: Settings, edition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table for people, JSON for programs, and an exit code by the worst finding."""
    monkeypatch.setenv("FLEETWATT_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("FLEETWATT_DATA_DIR", "/nonexistent")
    result = CliRunner().invoke(group, ["doctor"])
    assert result.exit_code == 2
    assert "durability: fsync is off" in result.stdout
    assert "alter system set fsync = on" in result.stdout
    assert {"apache": "Apache-2", "community": "Community"}[edition] in result.stdout
    result = CliRunner().invoke(group, ["doctor", "--json"])
    told = json.loads(result.stdout)
    assert (result.exit_code, told["exitCode"]) == (2, 2)
    assert {"severity", "check", "what", "why", "command"} == set(told["findings"][0])
    assert "durability" in {finding["check"] for finding in told["findings"]}

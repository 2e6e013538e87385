"""What Dockerfile and compose file command, done without containers: real servers, an ordinary user."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
import yaml

from tests.deploy.containers import MOSQUITTO_21, Machine, install, wait_until
from tests.deploy.files import ROOT, compose, service
from tests.support import servers

_METER: Final = "meter/METER-001"
_PASSWORD: Final = "made-by-hand"
# For workers beside another one, which has the port.
_NO_METRICS: Final = {"FLEETWATT_WORKER_METRICS_PORT": "0"}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """Give a machine on which the engine is installed, its database runs, and both jobs have ended."""
    with servers.scratch_dir() as folder, ExitStack() as stack:
        built = Machine(folder, install(folder))
        built.configure()
        built.initialise_database()
        _, log_file = stack.enter_context(built.running("database", words=built.database_words()))
        wait_until(lambda: _answers(built), log_file)
        with built.superuser("postgres") as connection:
            connection.execute("create database fleetwatt")
        built.wait_healthy("database", log_file)
        built.job("roles")
        built.job("migrate")
        built.configure_broker()
        with built.running("broker") as (_, log_file):
            built.wait_healthy("broker", log_file)
            built.add_device(_METER, _PASSWORD)
            # A name that would be the topics of others: it gets no rule at the next start.
            built.add_device("meter/+", _PASSWORD)
        yield built


def _answers(machine: Machine) -> bool:
    words = ["pg_isready", "--quiet", "--host=127.0.0.1"]
    return subprocess.run(words, check=False, **machine.options("database")).returncode == 0


def _reading(value: float) -> bytes:
    now = datetime.now(UTC).isoformat()
    return json.dumps({"kwhConsumedAc": value, "voltage": 230.0, "timestamp": now}).encode()


def _publish(machine: Machine, value: float, topic: str = _METER) -> str:
    """Publish a reading as the device does; give what the broker has against it."""
    tool = servers.apache_root() / "usr/bin/mosquitto_pub"
    address = ("-h", "localhost", "-p", str(machine.ports["devices"]))
    login = ("--cafile", str(machine.secrets / "broker-ca.crt"), "-u", _METER, "-P", _PASSWORD)
    message = ("-V", "5", "-q", "1", "-t", f"telemetry/{topic}", "-m", _reading(value).decode())
    result = subprocess.run(
        [str(tool), *address, *login, *message], check=True, capture_output=True, text=True, timeout=30
    )
    return str(result.stderr)


def _stored(machine: Machine) -> set[float]:
    with machine.superuser() as connection:
        rows = connection.execute("select kwh_consumed_ac from meter_reading").fetchall()
    assert len(set(rows)) == len(rows)
    return {value for (value,) in rows}


def _leave(machine: Machine) -> str:
    """End the sessions that no worker has; give what is logged of them."""
    entry, folder = machine.words("worker")
    left = subprocess.run(
        [entry, "--leave", folder],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
        **machine.options("worker"),
    )
    assert left.returncode == 0, left.stderr
    said = f"{left.stdout}{left.stderr}"
    assert said.count("session_ended") == 1, said
    return said


def _client_id(log_file: Path) -> str | None:
    events = (json.loads(line) for line in log_file.read_text().splitlines() if line.startswith("{"))
    return next((event["client_id"] for event in events if event["event"] == "broker_connected"), None)


@pytest.fixture
def broker(machine: Machine) -> Iterator[None]:
    """Run the broker."""
    with machine.running("broker") as (_, log_file):
        machine.wait_healthy("broker", log_file)
        yield


def test_the_api(machine: Machine) -> None:
    """Roles, schema and keys are made, twice without harm; then the API knows the keys of the secrets."""
    machine.job("roles")
    assert "already current" in machine.job("migrate")
    with (
        machine.running("api") as (_, log_file),
        machine.api("admin") as operator,
        machine.api("read") as prometheus,
    ):
        machine.wait_healthy("api", log_file)
        sent = operator.post("/v1/ingest/meter", content=b'{"meterId": "METER-001",' + _reading(0.1)[1:])
        assert sent.status_code == 201, sent.text
        assert "fleetwatt_" in prometheus.get("/metrics").text
        assert prometheus.post("/v1/ingest/meter", content=b"{}").status_code == 403
        nobody = operator.get("/metrics", headers={"Authorization": ""})
        assert nobody.status_code == 401


@pytest.mark.usefixtures("broker")
def test_workers_share_what_a_device_publishes(machine: Machine) -> None:
    """Each has a number; one that dies leaves it, and what waits under it, to the next one."""
    rules = (machine.writable["broker"] / "acl").read_text()
    assert ("topic write telemetry/meter/METER-001\n" in rules, "telemetry/meter/+" in rules) == (True, False)
    with ExitStack() as stack:
        first, first_log = stack.enter_context(machine.running("worker", "worker-a"))
        wait_until(lambda: _client_id(first_log), first_log)
        machine.wait_healthy("worker", first_log)
        _, second_log = stack.enter_context(machine.running("worker", "worker-b", changed=_NO_METRICS))
        wait_until(lambda: _client_id(second_log), second_log)
        assert (_client_id(first_log), _client_id(second_log)) == ("fleetwatt-0", "fleetwatt-1")
        values = [0.2, 0.3, 0.4, 0.5]
        for value in values:
            assert not _publish(machine, value)
        for topic in ("meter/METER-002", "vehicle/METER-001", "meter/METER-001/more"):
            assert "Not authorized" in _publish(machine, 0.9, topic), topic
        wait_until(lambda: set(values) <= _stored(machine), first_log)

        first.send_signal(signal.SIGKILL)
        first.wait()
        for value in (0.6, 0.7):
            assert not _publish(machine, value)
        _, third_log = stack.enter_context(machine.running("worker", "worker-c"))
        wait_until(lambda: _client_id(third_log), third_log)
        assert _client_id(third_log) == "fleetwatt-0"
        wait_until(lambda: {0.6, 0.7} <= _stored(machine), third_log)


@pytest.mark.usefixtures("broker")
def test_a_worker_that_does_not_come_back(machine: Machine) -> None:
    """What it holds is stored by another's hand; then it takes part no more."""
    with machine.running("worker", "worker-d") as (_, log_file):
        wait_until(lambda: _client_id(log_file), log_file)
        with machine.running("worker", "worker-e", changed=_NO_METRICS) as (_, other_log):
            wait_until(lambda: _client_id(other_log), other_log)
        for value in (0.81, 0.82):
            assert not _publish(machine, value)
        assert "fleetwatt-1" in _leave(machine)
        for value in (0.83, 0.84):
            assert not _publish(machine, value)
        wait_until(lambda: {0.81, 0.82, 0.83, 0.84} <= _stored(machine), log_file)


def test_a_changed_password_is_in_force_after_the_next_start(machine: Machine) -> None:
    """The roles' passwords are those of the secrets, whatever they were."""
    file = machine.secrets / "service_password"
    before = file.read_text()
    file.chmod(0o644)
    file.write_text("another 'one'\n")
    machine.job("roles")
    machine.job("migrate")
    address = (machine.secrets / "service_database_url").read_text().strip()
    assert before.strip() in address
    with pytest.raises(AssertionError, match="password authentication failed"):
        _as_service(machine, before.strip())
    _as_service(machine, "another 'one'")
    file.write_text(before)
    machine.job("roles")
    _as_service(machine, before.strip())


def _as_service(machine: Machine, password: str) -> None:
    words = ["psql", "--no-psqlrc", "--host=127.0.0.1", "--username=fleetwatt_service", "--dbname=fleetwatt"]
    options = machine.options("roles", PGPASSWORD=password)
    result = subprocess.run(
        [*words, "--command=select 1"], check=False, capture_output=True, text=True, **options
    )
    assert result.returncode == 0, result.stderr


def test_grafana_reads_what_it_may(machine: Machine) -> None:
    """With what its data source says it reads bi, in a read-only session, and nothing else."""
    [source] = [one for one in _sources() if one["type"] == "grafana-postgresql-datasource"]
    [secret] = re.findall(r"\$__file\{/run/secrets/(\w+)\}", source["secureJsonData"]["password"])
    assert secret in service("grafana")["secrets"]
    address = f"host=127.0.0.1 port={machine.ports['database']} dbname={source['jsonData']['database']}"
    password = (machine.secrets / secret).read_text().strip()
    with psycopg.connect(address, user=source["user"], password=password) as connection:
        assert connection.execute("show default_transaction_read_only").fetchone() == ("on",)
        assert connection.execute("select count(*) from rollup_freshness").fetchone() == (2,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select * from public.meter_reading")


def _sources() -> list[dict[str, Any]]:
    file = ROOT / "deploy/grafana/provisioning/datasources/fleetwatt.yml"
    found: list[dict[str, Any]] = yaml.safe_load(file.read_text())["datasources"]
    return found


def test_without_secrets_nothing_starts(machine: Machine) -> None:
    """No default stands for a secret: each program says which file it misses."""
    for name in ("migrate", "api", "worker"):
        options = machine.options(name)
        options["env"] = {
            key: value.replace(str(machine.secrets), "/nowhere") for key, value in options["env"].items()
        }
        words = [word.replace(str(machine.secrets), "/nowhere") for word in machine.words(name)]
        result = subprocess.run(words, check=False, capture_output=True, text=True, timeout=50, **options)
        assert result.returncode == 1
        assert "cannot read '/nowhere/" in result.stderr, name


def test_leaving_a_broker_that_is_away(machine: Machine) -> None:
    """That all of the session is stored cannot be told then: the command says so, and may be repeated."""
    options = machine.options("worker", **_NO_METRICS)
    words = ["fleetwatt", "worker", "--leave"]
    result = subprocess.run(words, check=False, capture_output=True, text=True, timeout=50, **options)
    assert (result.returncode, "try again" in result.stderr) == (1, True), result.stderr


@pytest.mark.skipif(not MOSQUITTO_21, reason="FLEETWATT_TEST_MOSQUITTO names no folder with Mosquitto 2.1")
def test_a_shared_subscription_outlives_the_broker(machine: Machine) -> None:
    """What is published while the workers and then the broker are away is stored in the end."""
    with (
        machine.running("broker") as (_, log_file),
        machine.running("worker", "worker-f") as (_, worker_log),
        machine.running("worker", "worker-g", changed=_NO_METRICS) as (_, other_log),
    ):
        machine.wait_healthy("broker", log_file)
        wait_until(lambda: _client_id(worker_log) and _client_id(other_log), worker_log)
    for value in (2.1, 2.2):
        with machine.running("broker") as (_, log_file):
            machine.wait_healthy("broker", log_file)
            assert not _publish(machine, value)
    with (
        machine.running("broker"),
        # The broker deals to all workers that it knows, so each has to come back.
        machine.running("worker", "worker-h") as (_, worker_log),
        machine.running("worker", "worker-i", changed=_NO_METRICS),
    ):
        wait_until(lambda: {2.1, 2.2} <= _stored(machine), worker_log)


def test_only_the_services_named_here_have_commands() -> None:
    """A service that comes to the compose file comes to these tests, too."""
    run = {"database", "roles", "migrate", "api", "broker", "worker"}
    assert set(compose()["services"]) == {*run, "prometheus", "grafana"}
    assert os.access(Path(__file__).parents[2] / "deploy/compose/worker.sh", os.X_OK)

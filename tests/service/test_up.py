"""`fleetwatt up`, `status`, `down` as a user runs them: real processes, a data folder, signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from service.access.key import make
from service.embedded.processes import started_at
from tests.support import servers

pytestmark = pytest.mark.timeout(180)

READING = {"meterId": "m-1", "kwhConsumedAc": 0.1, "voltage": 230.0, "timestamp": "2026-01-31T12:00:00Z"}


def fleetwatt(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command and wait for it."""
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env={**os.environ, **(environment or {})},
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a data folder; whatever still runs on it afterwards is ended."""
    with servers.scratch_dir() as scratch:
        yield scratch / "data"
        fleetwatt("down", "--data-dir", str(scratch / "data"))


def up(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Start an engine in the background and give its addresses."""
    command = ("up", "--detach", "--json", "--data-dir", str(folder), *arguments)
    result = fleetwatt(*command, environment=environment)
    assert result.returncode == 0, result.stderr
    [line] = result.stdout.splitlines()
    answer: dict[str, Any] = json.loads(line)
    return answer


def store(address: str) -> dict[str, Any]:
    """Send one reading."""
    response = httpx.post(f"{address}/v1/telemetry", json=READING, trust_env=False)
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


def children(folder: Path) -> dict[str, tuple[int, int]]:
    """Give pid and start of each child process, by name, as the state file tells."""
    state = json.loads((folder / "fleetwatt.json").read_text())
    return {child["name"]: (child["pid"], child["started"]) for child in state["processes"]}


def wait_until_gone(processes: dict[str, tuple[int, int]]) -> None:
    """Wait until none of the processes lives."""
    deadline = time.monotonic() + 30
    while any(started_at(pid) == started for pid, started in processes.values()):
        assert time.monotonic() < deadline, processes
        time.sleep(0.05)


def test_data_survive_a_stop_and_a_start(folder: Path) -> None:
    """Up, store, down, up again: the same addresses, and the reading is there.

    What somebody set to log in to a broker of his own is for that broker, and no hindrance here.
    """
    elsewhere = {"FLEETWATT_MQTT_PASSWORD": "theirs", "FLEETWATT_MQTT_CA_FILE": "/nowhere/ca.crt"}
    first = up(folder, environment=elsewhere)
    beside = {**elsewhere, "FLEETWATT_DATA_DIR": str(folder)}
    sent = fleetwatt("simulate", "--devices", "1", "--for", "1", environment=beside)
    assert sent.returncode == 0, sent.stderr
    assert store(first["http"]) == {"accepted": 1, "duplicates": 0}
    with psycopg.connect(first["database"]) as connection:
        stored = "select count(*) from meter_reading where meter_id = 'm-1'"
        assert connection.execute(stored).fetchone() == (1,)
    running = children(folder)
    assert set(running) == {"postgres", "mosquitto", "worker", "serve"}
    assert fleetwatt("down", "--data-dir", str(folder)).returncode == 0
    wait_until_gone(running)
    assert fleetwatt("status", "--data-dir", str(folder)).returncode == 3
    second = up(folder)
    assert {name: second[name] for name in ("http", "mqtt", "database")} == {
        name: first[name] for name in ("http", "mqtt", "database")
    }
    assert store(second["http"]) == {"accepted": 0, "duplicates": 1}


def check_bi_sessions(folder: Path) -> None:
    """Check what a session of a BI tool starts with, at the address that `status` gives."""
    status = fleetwatt("status", "--json", "--data-dir", str(folder))
    assert status.returncode == 0, status.stderr
    address = json.loads(status.stdout)["biDatabase"]
    with psycopg.connect(address, autocommit=True) as connection:
        given = {
            name: connection.execute(f"show {name}".encode()).fetchone()
            for name in ("default_transaction_read_only", "statement_timeout", "search_path", "timezone")
        }
        assert given == {
            "default_transaction_read_only": ("on",),
            "statement_timeout": ("1min",),
            "search_path": ("bi",),
            "timezone": ("UTC",),
        }
        row = connection.execute(
            "select count(*) from pg_db_role_setting as s, unnest(s.setconfig) "
            "where s.setrole = 'fleetwatt_bi'::regrole"
        ).fetchone()
        assert row == (6,)
        assert connection.execute("select count(*) from meter_latest").fetchone() is not None
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("select lo_create(0)")
        connection.execute("set default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("create temp table t (a int)")


def test_bi_tools_start_read_only_with_nothing_to_set_up(folder: Path) -> None:
    """After `up`, on a new folder and on one from before, the role's sessions start as docs/bi.md says."""
    addresses = up(folder)
    check_bi_sessions(folder)
    log = (folder / "logs/postgres.log").read_text()
    assert "WARNING" not in log, log
    words = json.loads((folder / "passwords.json").read_text())
    superuser = {"user": "postgres", "password": words["postgres"]}
    with psycopg.connect(addresses["database"], autocommit=True, **superuser) as connection:
        row = connection.execute(
            "select pg_has_role('fleetwatt_owner', 'fleetwatt_bi', 'usage'), "
            "pg_has_role('fleetwatt_owner', 'fleetwatt_bi', 'set')"
        ).fetchone()
        assert row == (False, False)
        # As an earlier fleetwatt left it: no say over the role, and nothing set.
        connection.execute("alter role fleetwatt_bi in database fleetwatt reset all")
        connection.execute("revoke fleetwatt_bi from fleetwatt_owner")
        connection.execute("grant temporary on database fleetwatt to public")
    assert fleetwatt("down", "--data-dir", str(folder)).returncode == 0
    up(folder)
    check_bi_sessions(folder)


def test_commands_beside_it_keep_data_as_long(folder: Path) -> None:
    """How long data are kept was told to `up`: doctor and migrate, called without it, go by that."""
    keep = {"FLEETWATT_RAW_RETENTION_DAYS": "30"}
    started = fleetwatt("up", "--detach", "--data-dir", str(folder), environment=keep)
    assert "lifecycle: readings are kept 30 days" in started.stderr
    here = {"FLEETWATT_DATA_DIR": str(folder)}
    assert "lifecycle" not in fleetwatt("migrate", environment=here).stdout
    report = json.loads(fleetwatt("doctor", "--json", environment=here).stdout)
    assert "lifecycle" not in {finding["check"] for finding in report["findings"]}
    output = fleetwatt("migrate", environment=here | {"FLEETWATT_RAW_RETENTION_DAYS": "0"}).stdout
    assert "readings are kept for good" in output


def test_a_second_up_and_a_taken_port_say_what_is_wrong(folder: Path) -> None:
    """A folder in use, a taken port and a folder with other files each give one clear line."""
    running = up(folder)
    again = fleetwatt("up", "--data-dir", str(folder))
    assert again.returncode == 1
    assert "already runs" in again.stderr
    assert running["http"] in again.stderr
    with servers.scratch_dir() as other, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = fleetwatt("up", "--data-dir", str(other / "data"), "--mqtt-port", port)
        assert (refused.returncode, f"port {port} for MQTT is taken" in refused.stderr) == (1, True)
        (other / "home").mkdir()
        (other / "home/letter.txt").write_text("mine")
        assert fleetwatt("status", "--data-dir", str(other / "home")).returncode == 3
        assert fleetwatt("down", "--data-dir", str(other / "home")).returncode == 3
        refused = fleetwatt("up", "--data-dir", str(other / "home"))
        assert (refused.returncode, "letter.txt" in refused.stderr) == (1, True)
        assert "Traceback" not in refused.stderr + again.stderr


def test_kill_9_of_the_supervisor_leaves_nothing_behind(folder: Path) -> None:
    """When `up` is killed its children end by themselves, and the next `up` has all the data."""
    running = up(folder)
    store(running["http"])
    left = children(folder)
    os.kill(running["pid"], signal.SIGKILL)
    wait_until_gone(left)
    again = up(folder)
    assert store(again["http"]) == {"accepted": 0, "duplicates": 1}


@pytest.mark.parametrize("name", ["serve", "worker", "mosquitto", "postgres"])
def test_a_killed_child_is_started_again(folder: Path, name: str) -> None:
    """Kill -9 of any child: the engine takes readings again by itself."""
    running = up(folder)
    pid, started = children(folder)[name]
    os.kill(pid, signal.SIGKILL)
    wait_until_gone({name: (pid, started)})
    deadline = time.monotonic() + 60
    while True:
        try:
            fresh = children(folder)[name] != (pid, started)
            if fresh and httpx.get(f"{running['http']}/health/ready", trust_env=False).is_success:
                break
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)
    store(running["http"])


def test_foreground_ends_cleanly_on_ctrl_c(folder: Path) -> None:
    """Ctrl-C on `up` in the foreground: exit code 0, all children gone, ports free."""
    command = [sys.executable, "-m", "service", "up", "--json", "--data-dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())
        store(addresses["http"])
        running = children(folder)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    wait_until_gone(running)
    with pytest.raises(httpx.ConnectError):
        httpx.get(addresses["http"], trust_env=False)


def test_an_unsupported_system_is_told_the_other_ways() -> None:
    """Without apt the error names docker compose and servers of one's own."""
    with servers.scratch_dir() as scratch:
        (scratch / "bin").mkdir()
        result = fleetwatt(
            "install-servers",
            environment={"PATH": str(scratch / "bin"), "XDG_CACHE_HOME": str(scratch / "cache")},
        )
    assert result.returncode == 1
    assert "apt-get" in result.stderr
    assert "docker compose" in result.stderr
    assert "FLEETWATT_DATABASE_URL" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_half_made_download_heals_itself() -> None:
    """What an interrupted installation left behind is cleared away by the next one."""
    with servers.scratch_dir() as scratch:
        environment = {"XDG_CACHE_HOME": str(scratch)}
        cache = scratch / "fleetwatt"
        (cache / "servers-partial-abc/debs").mkdir(parents=True)
        (cache / "servers-trixie-1/usr").mkdir(parents=True)
        result = fleetwatt("install-servers", environment=environment)
        assert result.returncode == 0, result.stderr
        assert not (cache / "servers-partial-abc").exists()
        assert (cache / "servers-trixie-1/usr/lib/postgresql/17/bin/postgres").is_file()


def test_demo_makes_itself_a_key(folder: Path) -> None:
    """Where its service asks for keys the demo has one of its own, and nobody has it afterwards.

    What is set for another service does not matter, and an open one stays open.
    """
    demo = ("demo", "2", "--devices", "2", "--interval", "1", "--data-dir", str(folder))
    assert fleetwatt("demo", "1", *demo[2:]).returncode == 0
    running = up(folder)
    assert httpx.get(f"{running['http']}/v1/sessions", trust_env=False).status_code == 200
    assert keys_of(folder) == []
    made = fleetwatt("key", "create", "--name", "mine", "--scope", "read", "--data-dir", str(folder))
    assert made.returncode == 0, made.stderr
    assert fleetwatt("down", "--data-dir", str(folder)).returncode == 0
    result = fleetwatt(*demo, environment={"FLEETWATT_API_KEY": make().text})
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith("lost 0")
    up(folder)
    assert [(key["name"], key["state"]) for key in keys_of(folder)] == [
        ("mine", "active"),
        ("demo", "revoked"),
    ]


def keys_of(folder: Path) -> list[dict[str, Any]]:
    """Give what `key list` tells to programs of a running engine."""
    result = fleetwatt("key", "list", "--json", "--data-dir", str(folder))
    assert result.returncode == 0, result.stderr
    keys: list[dict[str, Any]] = json.loads(result.stdout)["keys"]
    return keys


def test_demo_balances_its_books(folder: Path) -> None:
    """A short demo ends by itself with a summary as its last line, and nothing is lost."""
    result = fleetwatt("demo", "6", "--devices", "5", "--interval", "1", "--data-dir", str(folder))
    assert result.returncode == 0, result.stderr
    words = result.stdout.splitlines()[-1].replace(",", "").split()
    assert words[0::2][:3] == ["sent", "stored", "duplicates"]
    assert int(words[1]) == int(words[3]) > 5 * 2 * 1440
    assert result.stdout.splitlines()[-1].endswith("dead letters 0, lost 0")

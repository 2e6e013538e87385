"""What the doctor makes of figures and words that no server here would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.doctor import messages, mosquitto, room, server, versions
from service.doctor.broker import Seen
from service.doctor.examine import Report
from service.doctor.finding import Finding, Patient, Severity, size
from service.maintenance.retention import Rules
from service.settings import Settings
from tests.support.deployed_broker import DEPLOYED

PATIENT = Patient(settings=Settings(database_url="postgresql://u@db.example:5433/fleet"))
RULES = Rules(chunk_hours=24, columnstore_after_days=0, raw_retention_days=60, rollup_retention_days=0)
GB = 10**9


def whats(findings: list[Finding]) -> list[tuple[str, str]]:
    """Give severity and words of findings."""
    return [(finding.severity, finding.what) for finding in findings]


@pytest.mark.parametrize(
    ("postgres", "timescaledb", "words"),
    [
        ("17.0", "2.19.3", []),
        ("17.2", "2.19.3", []),
        ("17.10", "2.29.2", []),
        ("17.1", "2.19.3", ["17.1 with"]),
        ("16.9", "2.19.3", ["older than 17"]),
        ("17.4", "2.18.2", ["older than 2.19"]),
        ("16.1", "2.9.0", ["older than 17", "older than 2.19"]),
        ("17.4", None, ["no extension"]),
    ],
)
def test_versions_of_the_database(postgres: str, timescaledb: str | None, words: list[str]) -> None:
    """Pairs that are known to be bad are told, each as an error, and no others."""
    major, minor = map(int, postgres.split("."))
    told: dict[str, Any] = {
        "postgres": postgres,
        "postgres_number": major * 10_000 + minor,
        "timescaledb": timescaledb,
    }
    found = versions.of_database(told)
    assert len(found) == len(words)
    for finding, word in zip(found, words, strict=True):
        assert word in finding.what
        assert finding.severity == "error"


@pytest.mark.parametrize(
    ("told", "share", "queued", "words"),
    [
        ("mosquitto version 2.0.21", "", "5000000", []),
        ("mosquitto version 2.0.22", "", "0", []),
        ("mosquitto version 2.1.0", "fleetwatt", "0", []),
        ("mosquitto version 2.0.21", "fleetwatt", "5000000", ["shared subscription"]),
        ("mosquitto version 2.0.21", "", "0", ["max_queued_messages 0"]),
        ("mosquitto version 2.0.16", "", "5000000", ["2.0.16"]),
        ("", "fleetwatt", "0", []),
        ("EMQX 5.8", "fleetwatt", "0", []),
    ],
)
def test_versions_of_mosquitto(told: str, share: str, queued: str, words: list[str]) -> None:
    """Versions that go badly with a configuration are told; other brokers are not judged by them."""
    found = versions.of_mosquitto(told, share, {"max_queued_messages": queued})
    assert len(found) == len(words)
    assert all(word in finding.what for finding, word in zip(found, words, strict=True))


@pytest.mark.parametrize(
    ("skew_s", "severity"),
    [(0.0, None), (2.4, None), (-2.6, "warning"), (200.0, "warning"), (-301.0, "error")],
)
def test_clock(skew_s: float, severity: str | None) -> None:
    """A clock within what a round trip hides is right; off by the bound of readings it is an error."""
    found = server.clock(skew_s, 0.5, 300.0)
    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_chunks_and_memory() -> None:
    """Chunks of all streams have to fit into a quarter of memory; the command names a length that does."""
    figures: dict[str, Any] = {
        "bytes_a_day": 4.0 * GB,
        "index_bytes_a_day": 1.0 * GB,
        "rules": RULES,
        "memory": 16.0 * GB,
    }
    assert room.judge_chunks(PATIENT, **figures, shared_buffers=2 * GB) == []
    [finding] = room.judge_chunks(PATIENT, **{**figures, "memory": 6.0 * GB}, shared_buffers=2 * GB)
    assert "4.0 GB" in finding.what
    # What else the database goes by is in it, for whoever runs it would else switch that off.
    assert finding.command.startswith(
        "FLEETWATT_CHUNK_HOURS=8 FLEETWATT_RAW_RETENTION_DAYS=60 fleetwatt migrate"
    )
    shorter = {**figures, "memory": 6.0 * GB, "rules": RULES._replace(chunk_hours=8)}
    assert room.judge_chunks(PATIENT, **shorter, shared_buffers=2 * GB) == []
    [finding] = room.judge_chunks(PATIENT, **figures, shared_buffers=GB // 8)
    assert "psql -h db.example -p 5433 -U postgres -d fleet" in finding.command
    assert "shared_buffers = '1430MB'" in finding.command


@pytest.mark.parametrize(
    ("free", "a_day", "most", "severity"),
    [
        (100 * GB, 0.0, None, None),
        (100 * GB, 3 * GB, None, None),
        (100 * GB, 4 * GB, None, "warning"),
        (100 * GB, 20 * GB, None, "error"),
        (100 * GB, 20 * GB, 50 * GB, None),
        (100 * GB, 20 * GB, 120 * GB, "error"),
        (GB // 2, 0.0, None, "error"),
    ],
)
def test_disk(free: float, a_day: float, most: float | None, severity: str | None) -> None:
    """Less than a month of room is a warning, less than a week an error, unless retention frees it."""
    found = room.judge_disk("/data", free=free, a_day=a_day, most=most, rules=RULES)
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert all("FLEETWATT_RAW_RETENTION_DAYS=30 " in finding.command for finding in found)


def test_what_a_broker_grants() -> None:
    """Each limit that loses messages is told; who says nothing grants everything (MQTT 5, 3.2.2.3)."""
    settings = Settings(mqtt_share="fleetwatt")
    assert messages.judge(Seen(), settings) == []
    granted = {
        "max_qos": 0,
        "retain_available": 0,
        "wildcard_subscription_available": 0,
        "shared_subscription_available": 0,
        "session_expiry_interval": 3600,
    }
    told = {"$SYS/broker/publish/messages/dropped": "7"}
    words = ["QoS 0", "no retained", "no wildcards", "no shared", "3600 s", "dropped 7"]
    found = messages.judge(Seen(granted=granted, told=told), settings)
    assert len(found) == len(words)
    assert all(word in finding.what for finding, word in zip(found, words, strict=True))


@pytest.mark.parametrize("folder", ["mosquitto", "compose"])
def test_configurations_that_are_ours(folder: str) -> None:
    """Nothing is wrong with the broker's configurations in deploy/."""
    file = DEPLOYED.parent / folder / "mosquitto.conf"
    assert mosquitto.judge(file, mosquitto.read(file), Settings()) == []


def test_a_configuration_that_loses(tmp_path: Path) -> None:
    """Each option that loses messages is told with a command that sets it; an included file counts."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/more.conf").write_text("retain_available false\npersistent_client_expiration 1d\n")
    file = tmp_path / "mosquitto.conf"
    file.write_text(
        "# persistence true\npersistence true\nmax_queued_messages 100\nper_listener_settings true\n"
        f"include_dir {tmp_path}/conf.d\n"
    )
    found = mosquitto.judge(file, mosquitto.read(file), Settings())
    assert whats(found) == [
        ("warning", "no autosave_interval in mosquitto.conf"),
        ("error", "max_queued_messages 100 in mosquitto.conf"),
        ("warning", "no max_inflight_messages in mosquitto.conf"),
        ("error", "per_listener_settings true in mosquitto.conf"),
        ("warning", "persistent_client_expiration 1d in mosquitto.conf"),
        ("error", "retain_available false in mosquitto.conf"),
    ]
    assert found[0].command.startswith(f"echo 'autosave_interval 30' >> {file}")
    assert found[1].command.startswith(
        f"sed -i 's/^max_queued_messages .*/max_queued_messages 5000000/' {file}"
    )


@pytest.mark.parametrize(
    ("severities", "code"), [([], 0), (["note"], 0), (["note", "warning"], 1), (["warning", "error"], 2)]
)
def test_exit_code(severities: list[Severity], code: int) -> None:
    """The worst finding decides; a note is nothing to do."""
    findings = [Finding(severity, "c", "what", "why") for severity in severities]
    assert Report({}, findings).exit_code == code


def test_sizes() -> None:
    """Bytes are told in the largest unit that they fill."""
    assert [size(number) for number in (0, 12_000, 3.2e6, 4e9, 1.5e12)] == [
        "0 kB", "12 kB", "3.2 MB", "4.0 GB", "1.5 TB",
    ]  # fmt: skip

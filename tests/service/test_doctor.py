"""`fleetwatt doctor` on real databases: it finds what was broken, and nothing where nothing is."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import psycopg
import pytest

from service import migrations
from service.doctor import broker, room
from service.doctor.examine import examine
from service.doctor.finding import Patient
from service.embedded.instance import Running
from service.maintenance import retention
from service.settings import Settings
from tests.support import servers
from tests.support.doctor import found, good_broker, has, history, running_broker
from tests.support.servers import Postgres

pytestmark = pytest.mark.timeout(120)

DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "timescaledb.max_background_workers": "8",
}
LOSING = """\
allow_anonymous true
max_queued_messages 10
sys_interval 1
listener {port} 127.0.0.1
max_qos 0
"""


@pytest.fixture(scope="module", params=["apache", "community"])
def sound(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """Give a server that keeps what it has committed, and runs its jobs."""
    root = servers.apache_root() if request.param == "apache" else servers.community_root()
    if root is None:
        pytest.skip("no TimescaleDB Community here")
    with servers.running_postgres(root, DURABLE) as server:
        yield server


def test_nothing_is_found_where_nothing_is_wrong(sound: Postgres) -> None:
    """A migrated database with readings, settings that it took over, and the broker as we configure it."""
    with sound.database(empty=True) as name, good_broker() as (port, file):
        owner = sound.url("fleetwatt_owner", name)
        migrations.migrate(owner)
        settings = Settings(
            database_url=sound.url("fleetwatt_service", name),
            mqtt_url=f"mqtt://127.0.0.1:{port}",
            columnstore_after_days=0,
            raw_retention_days=30,
            rollup_retention_days=400,
        )
        retention.apply(owner, settings)
        with psycopg.connect(owner, autocommit=True) as connection:
            history(connection, 3)
            connection.execute("call refresh_rollups()")
        # As a worker's pool calls itself; test_a_running_engine_is_sound has one.
        with psycopg.connect(settings.database_url, application_name="fleetwatt worker w-1"):
            report = examine(Patient(settings=settings, broker_config=file))
        assert report.findings == []
        assert report.exit_code == 0
        assert "TimescaleDB 2." in report.facts["database"]
        assert report.facts["broker"].startswith("mosquitto version 2.")


def break_database(admin: psycopg.Connection[Any], community: bool) -> None:
    """Break what can be broken in a database."""
    history(admin, 40)
    # The only refresh was long ago, and failed since.
    admin.execute("update rollup_progress set refreshed_at = now() - interval '5 hours'")
    admin.execute("select note_refresh_failure('no luck')")
    admin.execute(
        "insert into meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage) "
        "values ('reset', '1970-01-01 00:01Z', 0.1, 230)"
    )
    admin.execute("revoke insert on vehicle_reading from fleetwatt_service")
    admin.execute("grant select on charging_session to public")
    admin.execute(
        "insert into dead_letter (origin, code, message, raw, raw_size) values ('http', 'x', 'm', '', 0)"
    )
    admin.execute(
        "insert into ingest_minute (minute, writer, kind, accepted) "
        "values (date_trunc('minute', now()) - interval '3 hours', 'mqtt/w-1', 'meter', 1)"
    )
    admin.execute(
        "insert into efficiency_alert (vehicle_id, meter_id, kind, opened_at, window_from, window_to, "
        "kwh_ac, kwh_dc, "
        "meter_coverage, vehicle_coverage, ratio_opened, ratio_worst, ratio_latest, threshold, "
        "evaluated_until) values "
        "('v', 'm', 'low_efficiency', now(), now(), now(), 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.85, now())"
    )
    admin.execute(
        "insert into alert_event (alert_id, vehicle_id, action, occurred_at, alert, webhook_state) "
        "select alert_id, 'v', 'opened', now() - interval '1 hour', '{}', 'failed' from efficiency_alert"
    )
    if community:
        admin.execute(
            "select delete_job(job_id) from timescaledb_information.jobs where proc_name = 'refresh_rollups'"
        )
        admin.execute("select add_retention_policy('meter_reading', interval '90 days')")


def leave_a_session(port: int) -> None:
    """Subscribe as a worker that then goes away, and wait until the broker tells of its session."""
    subscribe = str(servers.apache_root() / "usr/bin/mosquitto_sub")
    options = ["-V", "5", "-c", "-i", "w-1", "-x", "3600", "-q", "1", "-t", "telemetry/+/+", "-E"]
    subprocess.run([subscribe, "-p", str(port), *options], check=True, timeout=20)
    settings = Settings(mqtt_url=f"mqtt://127.0.0.1:{port}")
    while asyncio.run(broker.see(settings)).told.get("$SYS/broker/clients/disconnected", "0") == "0":
        time.sleep(0.2)


def test_all_that_is_broken_is_found(
    postgres: Postgres, database: str, settings: Settings, edition: str
) -> None:
    """A server without durability, a broker that loses messages, and a database broken in ten ways."""
    with postgres.admin(database) as admin:
        break_database(admin, edition == "community")
    with running_broker(LOSING) as (port, file):
        leave_a_session(port)
        patient = Patient(
            settings=msgspec.structs.replace(
                settings,
                mqtt_url=f"mqtt://127.0.0.1:{port}",
                mqtt_share="fleetwatt",
                http_host="0.0.0.0",  # noqa: S104 - nothing listens
                alert_webhook_url="https://example.invalid/hook",
                raw_retention_days=10,
            ),
            broker_config=file,
            # A machine whose clock is behind.
            now=lambda: time.time() - 1000,
        )
        report = examine(patient)
    assert report.exit_code == 2
    for check, words in (
        ("durability", "fsync is off"),
        ("durability", "full_page_writes is off"),
        ("durability", "synchronous_commit is off"),
        ("clock", "ahead"),
        ("roles", "lacks insert on vehicle_reading"),
        ("roles", "public was given select on charging_session"),
        ("lifecycle", "readings are kept 10 days"),
        ("rollups", "meter readings have not been rolled up since"),
        ("dead letters", "1 dead letters wait"),
        ("alerts", "1 alert events are not published"),
        ("alerts", "1 alert events were given up"),
        ("keys", "no key works"),
        ("encryption", "is not HTTPS"),
        (
            "times",
            "1 chunks of meter_reading hold readings of more than 15 years ago, the first of 1970-01-01",
        ),
        ("sessions", "no worker is connected"),
        ("sessions", "w-1 has stored nothing"),
        ("versions", "shared subscription on Mosquitto 2.0"),
        ("broker", "QoS 0 only"),
        ("broker configuration", "no persistence"),
        ("broker configuration", "max_queued_messages 10 "),
    ):
        finding = has(report, check, words)
        assert finding.why, finding
        assert finding.command or finding.check == "broker", finding
    # What would go is told before anybody loses it.
    assert "chunks of meter_reading until" in has(report, "lifecycle", "10 days").why
    if edition == "community":
        has(report, "jobs", "max_background_workers is 0")
        has(report, "jobs", "there is no job refresh_rollups")
        has(report, "jobs", "policy_retention of meter_reading that no setting asks for")
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_what_stands_still_is_found(
    postgres: Postgres, database: str, settings: Settings, edition: str
) -> None:
    """Dropping that fails, late hours that wait, a job that is off, a role with power, and more."""
    hasty = msgspec.structs.replace(settings, columnstore_after_days=3, mqtt_url="mqtt://127.0.0.1:1")
    with postgres.admin(database) as admin:
        history(admin, 3)
        admin.execute("call refresh_rollups()")
        admin.execute("update lifecycle set failed_at = now(), last_error = 'no luck'")
        admin.execute(
            "insert into rollup_stale (stream, hour, logged_at) "
            "values ('meter', date_trunc('hour', now() - interval '5 hours'), now() - interval '2 hours')"
        )
        if edition == "community":
            admin.execute(
                "select alter_job(job_id, scheduled => false) from timescaledb_information.jobs "
                "where proc_name = 'refresh_rollups'"
            )
        admin.execute("alter role fleetwatt_bi createrole")
        try:
            report = examine(Patient(settings=hasty))
        finally:
            admin.execute("alter role fleetwatt_bi nocreaterole")
    assert has(report, "lifecycle", "could not be dropped: no luck").severity == "error"
    assert has(report, "lifecycle", "after 3 days, and the broker keeps them").command.startswith(
        "FLEETWATT_COLUMNSTORE_AFTER_DAYS=7 "
    )
    assert has(report, "rollups", "still not rolled up").severity == "warning"
    assert "nocreaterole" in has(report, "roles", "fleetwatt_bi has rights of an administrator").command
    if edition == "community":
        assert "scheduled => true" in has(report, "jobs", "is off").command


def test_room(postgres: Postgres, database: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory and disk of this machine are held against the growth of the last day's chunks."""
    with postgres.admin(database) as admin:
        history(admin, 3)
    here = Running(
        pid=1, started=1, ready=True, data_dir="/data", http="", mqtt="", database="", service_database="",
        bi_database="", http_port=1, mqtt_port=1, db_port=1, processes=[],
    )  # fmt: skip
    monkeypatch.setattr(room, "machine_bytes", lambda: 200_000)
    monkeypatch.setattr(room, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    report = examine(Patient(settings=settings, running=here))
    assert "FLEETWATT_CHUNK_HOURS=" in has(report, "memory", "more than a quarter").command
    assert "room for" in has(report, "disk", "are free at /data").what


def test_the_commands_mend(postgres: Postgres, database: str, settings: Settings) -> None:
    """What the doctor says to do does away with the finding."""
    with postgres.admin(database) as admin:
        admin.execute("revoke insert on vehicle_reading from fleetwatt_service")
        admin.execute("grant select on charging_session to public")
        report = examine(Patient(settings=settings))
        assert ("error", "roles") in found(report)
        revoke = has(report, "roles", "public was given").command
        statement = revoke.partition('-c "')[2].removesuffix('"')
        admin.execute(statement.encode())
        admin.execute("grant insert on vehicle_reading to fleetwatt_service")
    assert ("error", "roles") not in found(examine(Patient(settings=settings)))
    assert ("warning", "roles") not in found(examine(Patient(settings=settings)))


def test_nobody_answers() -> None:
    """With database and broker away there are findings, with what to do, and no traceback."""
    url = f"postgresql://u:secret@127.0.0.1:{servers.free_port()}/d"
    settings = Settings(database_url=url, mqtt_url=f"mqtt://127.0.0.1:{servers.free_port()}")
    report = examine(Patient(settings=settings))
    assert found(report) == {("error", "database"), ("error", "broker")}
    assert report.exit_code == 2
    assert "secret" not in str(report)
    assert found(examine(Patient(settings=Settings(database_url="postgresql://u:secret@h:port/d")))) == {
        ("error", "database")
    }
    assert found(examine(Patient(settings=Settings()))) == {("error", "database")}


def test_no_schema(postgres: Postgres) -> None:
    """A database without a schema, or with one of another release, is one finding and not twenty."""
    with postgres.database(empty=True) as name:
        settings = Settings(database_url=postgres.url("fleetwatt_service", name))
        finding = has(examine(Patient(settings=settings)), "schema", "no schema")
        assert finding.command == "fleetwatt migrate"
        migrations.migrate(postgres.url("fleetwatt_owner", name))
        assert ("error", "schema") not in found(examine(Patient(settings=settings)))
        with postgres.admin(name) as admin:
            for revision, words in (("0003", "is at 0003"), ("9999", "newer than this version")):
                admin.execute("update alembic_version set version_num = %s", (revision,))
                report = examine(Patient(settings=settings))
                assert has(report, "schema", words).severity == "error"
                assert not {check for _, check in found(report)} & {"roles", "rollups", "jobs"}


def test_settings_that_do_not_go_together(settings: Settings) -> None:
    """What `migrate` would refuse is told as a finding."""
    wrong = msgspec.structs.replace(settings, rollup_retention_days=5)
    has(examine(Patient(settings=wrong)), "lifecycle", "FLEETWATT_ROLLUP_RETENTION_DAYS without")


def test_chunks_that_wait(postgres: Postgres, database: str, settings: Settings) -> None:
    """Readings that are too old and cannot go, since nothing has rolled them up, are told."""
    keep = msgspec.structs.replace(settings, raw_retention_days=10, rollup_retention_days=20)
    retention.apply(postgres.url("fleetwatt_owner", database), keep)
    with postgres.admin(database) as admin:
        history(admin, 40)
    has(examine(Patient(settings=keep)), "lifecycle", "chunks of meter_reading are too old and cannot go")
    with postgres.admin(database) as admin:
        admin.execute("call refresh_rollups()")
    report = examine(Patient(settings=keep))
    assert has(report, "lifecycle", "chunks of meter_reading until").severity == "note"


def test_times_are_told_in_utc(postgres: Postgres, database: str, settings: Settings) -> None:
    """A letter that waits is told with the time since when, in UTC."""
    at = datetime.now(UTC) - timedelta(days=2)
    with postgres.admin(database) as admin:
        admin.execute(
            "insert into dead_letter (received_at, origin, code, message, raw, raw_size) "
            "values (%s, 'http', 'x', 'm', '', 0)",
            (at,),
        )
    finding = has(examine(Patient(settings=settings)), "dead letters", "wait")
    assert f"{at:%Y-%m-%d %H:%M} UTC" in finding.what

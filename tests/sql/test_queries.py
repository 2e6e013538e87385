"""Every named query runs against the real schema as the role that uses it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

import service
from service.settings import Settings
from service.sql import queries
from tests.support.servers import Postgres

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
# A value for each parameter name; one name means one thing in all queries.
VALUES: dict[str, Any] = {
    "ids": ["a"],
    "times": [NOW],
    "meter_times": [NOW],
    "meter_kwh": [0.1],
    "meter_voltage": [230.0],
    "vehicle_times": [NOW],
    "vehicle_soc": [50.0],
    "vehicle_kwh": [0.1],
    "vehicle_battery_temp": [20.0],
    "earliest": NOW,
    "latest": NOW,
    "kwh": [0.1],
    "voltage": [230.0],
    "soc": [50.0],
    "battery_temp": [20.0],
    "origin": ["test"],
    "kind": ["meter"],
    "device_id": ["a"],
    "code": ["x"],
    "field": [None],
    "message": ["m"],
    "raw": [b"{}"],
    "raw_size": [2],
    "writer": "w",
    "accepted": [1],
    "duplicates": [0],
    "conflicts": [0],
    "lag_s_count": [1],
    "lag_s_sum": [0.5],
    "lag_s_max": [0.5],
    "id": "a",
    "after": "",
    "since": None,
    "before": None,
    "soc_below": None,
    "page_size": 10,
    "window_from": NOW,
    "window_to": NOW,
    "least_kwh": 0.5,
    "at": NOW,
    "session_id": None,
    "session_ids": ["s"],
    "vehicle_id": "v",
    "vehicle_ids": ["v"],
    "meter_id": "m",
    "meter_ids": ["m"],
    "started_at": NOW,
    "started": [NOW],
    "ended_at": None,
    "ended": [NOW.replace(hour=13)],
    "is_open": None,
    "after_start": None,
    "after_id": None,
    "source": "test",
    "chunk_hours": 24,
    "columnstore_after_days": 0,
    "raw_retention_days": 0,
    "rollup_retention_days": 0,
    "years": 15,
    "expiry_s": 60,
    "message_origin": "mqtt:sessions/m",
    "payload": b"{}",
    "payload_size": 2,
    "refusal": "m",
    "refusal_code": "x",
    "refusal_field": None,
    "wait_s": 60.0,
    "timeout_ms": 1000,
    "width": "day",
    "zone": "Europe/Zurich",
    "names": ["rollup_settle_s"],
    "setting_values": [120.0],
    "reason": "r",
    "alert_kind": None,
    "after_alert": None,
    "channel": 1,
    "event_id": 1,
    "event_ids": [1],
    "webhook_state": "pending",
    "webhook_error": None,
    "pause_s": 1.0,
    "max_age_hours": 24,
    "streams": ["meter"],
    "hours": [NOW],
    "after_letter": None,
    "is_resolved": False,
    "letter_ids": [1, 2],
    "letter_kind": "meter",
    "letter_device": "m",
    "letter_code": "conflict",
    "letter_origin": "mqtt:",
    "replay_errors": [None, "x"],
    "max_age_days": 90,
    "max_total_bytes": 1024**3,
    "bite": 100,
    "key_id": "abcdefghijkl",
    "key_ids": ["abcdefghijkl"],
    "key_name": "k",
    "key_scopes": ["ingest"],
    "secret_sha256": bytes(32),
    "token_sha256": bytes(32),
    "token_hashes": ["00" * 32],
    "last_hours": 12.0,
    "key_meter_ids": ["m"],
    "key_vehicle_ids": None,
    "expires_at": None,
    "relations": ["meter_reading"],
    "stream_position": "1000",
}
# Where a name stands for one value, not for a column of a batch.
EXCEPTIONS: dict[str, dict[str, Any]] = {
    "vehicles_announced_lately": {"since": NOW},
    "take_session_message": {"session_id": "s"},
}
# They commit as they go.
COMMITTING = {"drop_expired", "refresh_rollups", "vacuum_dead_letters"}
# Run by the superuser of an embedded server, before the roles exist: tests/service/test_up.py runs them.
EMBEDDED = {
    "offer_role_password",
    "create_login_role",
    "database_exists",
    "create_database",
    "create_extension",
    "let_owner_create_roles",
    "quiet_job_history",
}
# What only the owner may do, by `fleetwatt key` and `fleetwatt migrate`.
OWNERS = {"apply_lifecycle", "create_api_key", "revoke_api_key"}
# What the service does only where no job of the database does it.
WITHOUT_JOBS = {"drop_expired", "note_expiry_failure", "note_refresh_failure", "refresh_rollups"}


@pytest.mark.parametrize("name", sorted(set(queries()) - EMBEDDED))
def test_query_runs_as_the_service(settings: Settings, edition: str, name: str) -> None:
    """The role fleetwatt_service (or the owner's) may run it and the schema has all that it names."""
    url = settings.migrate_database_url if name in OWNERS else settings.database_url
    with psycopg.connect(url, autocommit=name in COMMITTING) as connection:
        if name in WITHOUT_JOBS and edition == "community":
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(queries()[name], VALUES)
            return
        connection.execute(queries()[name], {**VALUES, **EXCEPTIONS.get(name, {})}, prepare=True)
        connection.rollback()


def test_each_query_is_used() -> None:
    """No query lies about that nothing runs."""
    source = "".join(file.read_text() for file in Path(service.__file__).parent.rglob("*.py"))
    used = set(re.findall(r'query\("([a-z_]+)"\)', source))
    assert used == set(queries())


def test_both_editions_are_what_they_say(postgres: Postgres, database: str, edition: str) -> None:
    """The fixtures run the editions that the summary names."""
    with postgres.admin(database) as connection:
        licence = connection.execute("show timescaledb.license").fetchone()
    assert licence == ({"apache": "apache", "community": "timescale"}[edition],)

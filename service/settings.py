"""Every setting: an environment variable FLEETWATT_<NAME>, a default and a line of help."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Meta

from service.errors import SettingsError

PREFIX: Final = "FLEETWATT_"

Port = Annotated[int, Meta(ge=1, le=65535)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment may choose. Read once at start; see `fleetwatt settings`."""

    database_url: Annotated[
        str,
        Meta(description="PostgreSQL with TimescaleDB, as the service role; found beside `fleetwatt up`"),
    ] = ""
    migrate_database_url: Annotated[
        str,
        Meta(
            description="The same database as a role that may create tables and roles; DATABASE_URL if empty"
        ),
    ] = ""
    mqtt_url: Annotated[
        str,
        Meta(description="MQTT 5 broker: mqtt://[user:password@]host[:port]; found beside `fleetwatt up`"),
    ] = ""
    mqtt_client_id: Annotated[
        str,
        Meta(description="Stable client id of this worker: the broker keeps its messages under it"),
    ] = "fleetwatt-0"
    mqtt_share: Annotated[
        str, Meta(description="Shared subscription that all workers join; empty: this is the only worker")
    ] = "fleetwatt"
    mqtt_receive_maximum: Annotated[
        int, Meta(ge=1, le=65535, description="Messages the broker may have in flight to a worker")
    ] = 4000
    mqtt_session_expiry_s: Annotated[
        int, Meta(ge=0, le=0xFFFFFFFF, description="Seconds the broker keeps the session of an absent worker")
    ] = 7 * 86_400
    session_wait_s: Annotated[
        float,
        Meta(
            ge=1,
            le=30 * 86_400,
            description="Seconds an MQTT message about a session waits for others before it is refused",
        ),
    ] = 86_400.0
    http_host: Annotated[str, Meta(description="Address the HTTP service listens on")] = "127.0.0.1"
    http_port: Annotated[Port, Meta(description="Port the HTTP service listens on")] = 8080
    http_max_body_bytes: Annotated[
        Positive, Meta(description="Largest request body as it arrives, in bytes")
    ] = 16 * 1024 * 1024
    http_max_decoded_bytes: Annotated[
        Positive, Meta(description="Largest request body once unpacked (gzip), in bytes")
    ] = 64 * 1024 * 1024
    http_max_readings: Annotated[Positive, Meta(description="Most readings in one request")] = 50_000
    http_commit_timeout_s: Annotated[
        Seconds, Meta(description="How long a request waits for its commit before it is answered with 503")
    ] = 10.0
    buffer_max_readings: Annotated[
        Positive, Meta(description="Readings a process holds before senders have to wait")
    ] = 200_000
    buffer_max_bytes: Annotated[
        Positive, Meta(description="Bytes of payload a process holds before senders have to wait")
    ] = 64 * 1024 * 1024
    batch_max_readings: Annotated[Positive, Meta(description="Most readings in one transaction")] = 10_000
    writers: Annotated[int, Meta(ge=1, le=32, description="Database connections that write, per process")] = 2
    retry_max_s: Annotated[
        Seconds, Meta(description="Longest pause between two tries while the database is away")
    ] = 2.0
    drain_timeout_s: Annotated[
        Seconds,
        Meta(description="How long a stopping process tries to store what it took; MQTT keeps the rest"),
    ] = 8.0
    read_pool_max: Annotated[
        int, Meta(ge=1, le=200, description="Database connections that answer queries, per process")
    ] = 8
    statement_timeout_s: Annotated[
        Seconds, Meta(description="Longest time one query of the API may take")
    ] = 30.0
    clock_ahead_s: Annotated[
        float, Meta(ge=0, le=86_400, description="How far ahead of the server a reading's timestamp may lie")
    ] = 300.0
    raw_retention_days: Annotated[
        int,
        Meta(ge=0, description="Refuse readings older than this many days; 0 accepts any age"),
    ] = 0
    dead_letter_max_bytes: Annotated[
        Positive, Meta(description="Bytes of a refused payload that are kept; the rest is cut off")
    ] = 256 * 1024
    efficiency_threshold: Annotated[
        float, Meta(gt=0, le=1, description="DC/AC ratio below which a charger counts as failing")
    ] = 0.85
    rollup_refresh_s: Annotated[
        Seconds,
        Meta(description="Seconds between two refreshes of the rollups, where the database schedules none"),
    ] = 60.0
    rollup_settle_s: Annotated[
        float,
        Meta(ge=0, le=86_400, description="Seconds that an hour is left to settle before it is rolled up"),
    ] = 120.0
    alerts: Annotated[
        bool, Meta(description="Evaluate efficiency alerts; when off, those that are open stay as they are")
    ] = True
    alert_window_hours: Annotated[
        int, Meta(ge=1, le=24 * 31, description="Length of the rolling window that alerts are judged by")
    ] = 24
    alert_least_kwh: Annotated[
        float, Meta(gt=0, le=1e6, description="Energy below which a window tells nothing of a charger, kWh")
    ] = 5.0
    alert_least_coverage: Annotated[
        float,
        Meta(ge=0, le=1, description="Share of the expected readings that must be there on both sides"),
    ] = 0.8
    alert_reading_interval_s: Annotated[
        Seconds, Meta(description="How often a device is expected to send a reading while it charges")
    ] = 60.0
    alert_close_margin: Annotated[
        float,
        Meta(ge=0, le=1, description="How far over the threshold DC/AC must be before an alert closes"),
    ] = 0.02
    alert_fault_tolerance: Annotated[
        float, Meta(ge=0, le=1, description="How far over 1 DC/AC may be before the data are at fault")
    ] = 0.02
    alert_stale_hours: Annotated[
        Positive,
        Meta(description="How long an alert stays open while there is too little energy to tell anything"),
    ] = 168
    alert_poll_s: Annotated[
        Seconds, Meta(description="How often alert events are looked for when no notification comes")
    ] = 5.0
    alert_webhook_url: Annotated[
        str, Meta(description="Address that each opening and closing of an alert is posted to; none if empty")
    ] = ""
    alert_webhook_timeout_s: Annotated[
        Seconds, Meta(description="How long the webhook may take to answer")
    ] = 10.0
    alert_webhook_tries: Annotated[
        Positive, Meta(description="Tries before an event is given up; by default over some 10 hours")
    ] = 20
    alert_webhook_pause_s: Annotated[
        Seconds, Meta(description="Pause after the first failed try; it doubles up to an hour, with jitter")
    ] = 10.0
    alert_webhook_max_age_hours: Annotated[
        int, Meta(ge=1, le=24 * 366, description="Events older than this are given up instead of posted")
    ] = 168
    data_dir: Annotated[
        str, Meta(description="Folder of the embedded servers' data; a private folder of the user if empty")
    ] = ""
    run_as: Annotated[
        str,
        Meta(
            description="Account of the embedded servers when started by root, which PostgreSQL refuses to be"
        ),
    ] = "nobody"
    log_level: Annotated[
        str, Meta(pattern="^(debug|info|warning|error)$", description="Least severity that is logged")
    ] = "info"
    log_format: Annotated[
        str, Meta(pattern="^(auto|json|text)$", description="json, text, or auto: text on a terminal")
    ] = "auto"


_FIELDS: Final = msgspec.structs.fields(Settings)


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from FLEETWATT_* variables.

    Raises SettingsError for an unknown FLEETWATT_* name (most often a typing error that would go
    unnoticed) and for a value out of range, naming the variable.
    """
    known = {PREFIX + field.name.upper(): field for field in _FIELDS}
    values: dict[str, Any] = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX) or name.startswith(PREFIX + "TEST_"):
            continue
        field = known.get(name)
        if field is None:
            raise SettingsError(f"unknown setting {name}: `fleetwatt settings` lists those that exist")
        try:
            values[field.name] = msgspec.convert(text, field.type, strict=False)
        except msgspec.ValidationError as error:
            raise SettingsError(f"{name}={text!r} is not valid: {error}") from None
    return Settings(**values)


def describe(settings: Settings) -> list[tuple[str, str, str, str]]:
    """Give (variable, value, default, help) for each setting, passwords in URLs hidden."""
    rows = []
    for field in _FIELDS:
        info = msgspec.inspect.type_info(field.type)
        help_line = ""
        if isinstance(info, msgspec.inspect.Metadata):
            help_line = str((info.extra_json_schema or {}).get("description", ""))
        value = getattr(settings, field.name)
        shown = hide_password(value) if field.name.endswith("url") else str(value)
        if field.name == "alert_webhook_url":
            shown = _hide_path(shown)
        rows.append((PREFIX + field.name.upper(), shown, str(field.default), help_line))
    return rows


def _hide_path(url: str) -> str:
    """Leave only scheme and host: the path and query of a webhook's address are often a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/***" if parts.path.strip("/") or parts.query else url


# In the query of a URL, or in a connection string of the form key=value.
_PASSWORD_VALUE: Final = re.compile(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^&\s]+)", re.IGNORECASE)


def hide_password(url: str) -> str:
    """Replace each password in a URL or connection string by three asterisks, for logs and for people."""
    shown = _PASSWORD_VALUE.sub(r"\1***", url)
    parts = urlsplit(shown)
    if not parts.scheme or parts.password is None:
        return shown
    login, _, host = parts.netloc.rpartition("@")
    user = login.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{user}:***@{host}"))

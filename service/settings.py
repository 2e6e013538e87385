"""Every setting: an environment variable FLEETWATT_<NAME>, a default and a line of help."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from service import secret
from service.errors import SettingsError

PREFIX: Final = "FLEETWATT_"

Port = Annotated[int, Meta(ge=1, le=65535)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
_LIST_OF: Final = "^(?:{0}(?:,{0})*)?$"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment may choose. Read once at start; see `fleetwatt settings`."""

    database_url: Annotated[
        str,
        Meta(
            description="PostgreSQL with TimescaleDB, as the service role; found beside `fleetwatt up`",
            extra=secret.PASSWORD_WITHIN,
        ),
    ] = ""
    migrate_database_url: Annotated[
        str,
        Meta(
            description="The same database as a role that may create tables and roles; DATABASE_URL if empty",
            extra=secret.PASSWORD_WITHIN,
        ),
    ] = ""
    read_database_url: Annotated[
        str,
        Meta(
            description="A replica of it that answers analytics and lists of states, as the service role",
            extra=secret.PASSWORD_WITHIN,
        ),
    ] = ""
    read_lag_max_s: Annotated[
        float,
        Meta(
            ge=2, le=3600, description="Seconds that the replica may be behind; past it the primary is asked"
        ),
    ] = 30.0
    mqtt_url: Annotated[
        str,
        Meta(
            description="MQTT 5 broker: mqtt://[user:password@]host[:port]; found beside `fleetwatt up`",
            extra=secret.PASSWORD_WITHIN,
        ),
    ] = ""
    mqtt_user: Annotated[
        str, Meta(description="User name at the broker, where FLEETWATT_MQTT_URL has none")
    ] = ""
    mqtt_password: Annotated[
        str,
        Meta(description="Its password; FLEETWATT_MQTT_PASSWORD_FILE names a file of it", extra=secret.WHOLE),
    ] = ""
    mqtt_ca_file: Annotated[
        str, Meta(description="Certificate authorities (PEM) for mqtts://; those of the system if empty")
    ] = ""
    mqtt_client_cert_file: Annotated[
        str, Meta(description="Certificate (PEM) that we show to the broker over mqtts://")
    ] = ""
    mqtt_client_key_file: Annotated[
        str, Meta(description="Its private key (PEM), unless it stands in the certificate's file")
    ] = ""
    mqtt_client_id: Annotated[
        str,
        Meta(description="Stable client id of this worker: the broker keeps its messages under it"),
    ] = "fleetwatt-0"
    mqtt_share: Annotated[
        str,
        Meta(
            description="Shared subscription that several workers join, say fleetwatt; empty: the only one",
            extra=secret.WHOLE,  # whoever knows it can join
        ),
    ] = ""
    worker_metrics_port: Annotated[
        int,
        Meta(ge=0, le=65535, description="Port at which a worker answers /metrics; 0 for none"),
    ] = 0
    worker_metrics_host: Annotated[
        str, Meta(description="Address of that port; it asks for no key, so mind who can reach it")
    ] = "127.0.0.1"
    mqtt_receive_maximum: Annotated[
        int, Meta(ge=1, le=65535, description="Messages the broker may have in flight to a worker")
    ] = 4000
    mqtt_max_packet_bytes: Annotated[
        int,
        Meta(
            ge=65_536,
            le=268_435_455,
            description="Largest MQTT packet to take; the broker drops larger ones: let it refuse them",
        ),
    ] = 16 * 1024 * 1024
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
    http_auth: Annotated[
        str,
        Meta(
            pattern="^(auto|keys)$",
            extra={"write": "auto or keys"},
            description="keys: every request needs one; auto: on loopback only once one was made",
        ),
    ] = "auto"
    http_rate: Annotated[
        int,
        Meta(
            ge=0, le=1_000_000, description="Requests a second that a key may make, a process; 0: any number"
        ),
    ] = 0
    key_cache_s: Annotated[
        float, Meta(ge=0, le=60, description="Seconds a process believes what it read of a key, good or bad")
    ] = 5.0
    sign_in_hours: Annotated[
        float, Meta(gt=0, le=744, description="Hours that a browser stays signed in with a key it was shown")
    ] = 12.0
    api_key: Annotated[
        str, Meta(description="Key that the simulator and `top` send with requests", extra=secret.WHOLE)
    ] = ""
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
    http_body_timeout_s: Annotated[
        Seconds,
        Meta(description="How long a request's body may take to arrive; then it is refused"),
    ] = 20.0
    http_bodies_max_bytes: Annotated[
        int,
        Meta(ge=1024 * 1024, description="Memory for all request bodies at once, as sent and as decoded"),
    ] = 256 * 1024 * 1024
    http_connections_max: Annotated[
        int, Meta(ge=16, le=60_000, description="Connections that are served at once; more have to wait")
    ] = 2000
    stream_clients_max: Annotated[
        int,
        Meta(
            ge=0,
            le=30_000,
            description="Live streams open at once, a process; never more than half of all connections",
        ),
    ] = 1000
    stream_bytes_per_s: Annotated[
        int,
        Meta(
            ge=64 * 1024,
            le=2**34,
            description="Bytes of changed states a second that a process sends on all live streams together",
        ),
    ] = 8 * 1024 * 1024
    http_stalled_timeout_s: Annotated[
        Seconds, Meta(description="A client that takes nothing of its answer for so long is disconnected")
    ] = 15.0
    http_tls_cert_file: Annotated[
        str, Meta(description="File of the certificate chain (PEM) to serve HTTPS with; HTTP if empty")
    ] = ""
    http_tls_key_file: Annotated[str, Meta(description="File of the certificate's private key (PEM)")] = ""
    http_hosts: Annotated[
        str,
        Meta(
            pattern=_LIST_OF.format(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])"),
            description="Host names that requests may be for, comma-separated; empty: on loopback its own",
            extra={"write": "host names without a port or a wildcard: fleet.example,www.fleet.example"},
        ),
    ] = ""
    http_cors_origins: Annotated[
        str,
        Meta(
            pattern=_LIST_OF.format(r"https?://[\w.-]+(?::\d+)?"),
            description="Origins whose web pages may call the API, comma-separated: https://dash.example,...",
            extra={
                "write": "origins in full, without a wildcard: https://dash.example,https://b.example:8443"
            },
        ),
    ] = ""
    buffer_max_readings: Annotated[
        Positive, Meta(description="Readings a process holds before senders have to wait")
    ] = 200_000
    buffer_max_bytes: Annotated[
        Positive, Meta(description="Bytes of payload a process holds before senders have to wait")
    ] = 64 * 1024 * 1024
    batch_max_readings: Annotated[Positive, Meta(description="Most readings in one transaction")] = 3000
    writers: Annotated[int, Meta(ge=1, le=32, description="Database connections that write, per process")] = 3
    retry_max_s: Annotated[
        Seconds, Meta(description="Longest pause between two tries while the database is away")
    ] = 2.0
    breaker_failures: Annotated[
        int,
        Meta(ge=1, le=32, description="Failed tries in a row after which HTTP is answered 503 at once"),
    ] = 3
    breaker_stall_s: Annotated[
        Seconds, Meta(description="A transaction that lasts longer makes HTTP be answered 503 at once")
    ] = 5.0
    write_timeout_s: Annotated[
        Seconds,
        Meta(description="A transaction that lasts longer is given up and tried on a new connection"),
    ] = 120.0
    drain_timeout_s: Annotated[
        Seconds,
        Meta(description="How long a stopping process tries to store what it took; MQTT keeps the rest"),
    ] = 8.0
    read_pool_max: Annotated[
        int, Meta(ge=1, le=200, description="Database connections that answer requests, per process")
    ] = 8
    statement_timeout_s: Annotated[
        Seconds, Meta(description="Longest time one query of the API may take")
    ] = 30.0
    clock_ahead_s: Annotated[
        float, Meta(ge=0, le=86_400, description="How far ahead of the server a reading's timestamp may lie")
    ] = 300.0
    raw_retention_days: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="Days readings are kept: older ones are refused and, once rolled up, dropped; 0: all",
        ),
    ] = 0
    rollup_retention_days: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="Days that hourly and daily rollups are kept, no fewer than readings; 0: all",
        ),
    ] = 0
    columnstore_after_days: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="Days after which readings move to the columnstore (TimescaleDB Community); 0: never",
        ),
    ] = 0
    chunk_hours: Annotated[
        int,
        Meta(ge=1, le=8784, description="Hours in a new chunk of readings; see docs/lifecycle.md"),
    ] = 24
    dead_letter_max_bytes: Annotated[
        Positive, Meta(description="Bytes of a refused payload that are kept; the rest is cut off")
    ] = 256 * 1024
    dead_letter_max_age_days: Annotated[
        int, Meta(ge=1, le=36_500, description="Days that what was refused is kept at most")
    ] = 90
    dead_letter_max_total_bytes: Annotated[
        int,
        Meta(
            ge=1024 * 1024,
            le=2**60,
            description="Bytes that all that was refused may take, 500 a row included; the oldest are pruned",
        ),
    ] = 1024**3
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
        str,
        Meta(
            description="Address that each opening and closing of an alert is posted to; none if empty",
            extra=secret.PATH_WITHIN,
        ),
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
        str,
        Meta(
            pattern="^(debug|info|warning|error)$",
            description="Least severity that is logged",
            extra={"write": "debug, info, warning or error"},
        ),
    ] = "info"
    log_format: Annotated[
        str,
        Meta(
            pattern="^(auto|json|text)$",
            description="json, text, or auto: text on a terminal",
            extra={"write": "auto, json or text"},
        ),
    ] = "auto"
    traces_url: Annotated[
        str,
        Meta(
            description="Collector of OpenTelemetry traces, OTLP over HTTP: http://host:4318; none if empty",
            extra=secret.PATH_WITHIN,
        ),
    ] = ""
    traces_ratio: Annotated[
        float,
        Meta(ge=0, le=1, description="Share of requests and messages to trace that bring no traceparent"),
    ] = 1.0

    def __repr__(self) -> str:
        """Show what was set, secrets hidden: a traceback or a log may show it."""
        shown = (
            f"{field.name}={secret.hide(_mark(field), str(getattr(self, field.name)))!r}"
            for field in _FIELDS
            if getattr(self, field.name) != field.default
        )
        return f"Settings({', '.join(shown)})"


# What belongs to the broker at mqtt_url, and to no other.
BROKER_CREDENTIALS: Final = (
    "mqtt_user",
    "mqtt_password",
    "mqtt_ca_file",
    "mqtt_client_cert_file",
    "mqtt_client_key_file",
)
_FIELDS: Final = msgspec.structs.fields(Settings)


def _meta(field: msgspec.structs.FieldInfo) -> msgspec.inspect.Metadata | None:
    info = msgspec.inspect.type_info(field.type)
    return info if isinstance(info, msgspec.inspect.Metadata) else None


def _extra(field: msgspec.structs.FieldInfo) -> dict[str, Any]:
    meta = _meta(field)
    return (meta.extra if meta else None) or {}


def _mark(field: msgspec.structs.FieldInfo) -> str | None:
    """Tell whether, and how far, a setting is a secret."""
    mark: str | None = _extra(field).get("hide")
    return mark


def load(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from FLEETWATT_* variables; a secret also from the file that ..._FILE names.

    Raises SettingsError for an unknown FLEETWATT_* name (most often a typing error that would go
    unnoticed) and for a value out of range, naming the variable.
    """
    known = {PREFIX + field.name.upper(): field for field in _FIELDS}
    values: dict[str, Any] = {}
    for name, text in _with_files(environment, known).items():
        if not name.startswith(PREFIX) or name.startswith(PREFIX + "TEST_"):
            continue
        field = known.get(name)
        if field is None:
            raise SettingsError(f"unknown setting {name}: `fleetwatt settings` lists those that exist")
        try:
            values[field.name] = msgspec.convert(text, field.type, strict=False)
        except msgspec.ValidationError as error:
            shown = secret.hide(_mark(field), text)
            wanted = _extra(field).get("write")
            raise SettingsError(
                f"{name}={shown!r} is not valid: {f'write {wanted}' if wanted else error}"
            ) from None
    return Settings(**values)


def _with_files(environment: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, str]:
    """Replace each ..._FILE of a secret by what stands in the file; an empty one counts as not given."""
    values = dict(environment)
    for name, field in known.items():
        path = values.pop(name + secret.FILE_SUFFIX, "") if _mark(field) else ""
        if path:
            variable = name + secret.FILE_SUFFIX
            if name in values:
                raise SettingsError(f"{name} and {variable} are both set: leave one of them out")
            values[name] = secret.read_file(variable, path)
    return values


def describe(settings: Settings) -> list[tuple[str, str, str, str]]:
    """Give (variable, value, default, help) for each setting, secrets hidden."""
    rows = []
    for field in _FIELDS:
        meta = _meta(field)
        help_line = str(((meta.extra_json_schema if meta else None) or {}).get("description", ""))
        shown = secret.hide(_mark(field), str(getattr(settings, field.name)))
        rows.append((PREFIX + field.name.upper(), shown, str(field.default), help_line))
    return rows

"""What the process counts and measures, for Prometheus; docs/metrics.md says what each number means.

No device ids as labels, and no label whose values somebody outside chooses. What is counted for each request
or message is in `service/tallies.py`: plain numbers.
"""

from __future__ import annotations

import platform
from typing import Final

from prometheus_client import Counter, Gauge, Histogram, Info, disable_created_metrics, start_http_server

from service import __version__, tallies
from service.errors import SettingsError

# The time at which each series was made would double their number, for nobody.
disable_created_metrics()  # type: ignore[no-untyped-call]
tallies.register()
BUILD: Final = Info("fleetwatt_build", "Version of fleetwatt, and of the Python that runs it")
BUILD.info({"version": __version__, "python": platform.python_version()})
READINGS: Final = Counter("fleetwatt_readings", "Readings by what became of them", ["kind", "result"])
GIVEN_BACK: Final = Counter(
    "fleetwatt_given_back_readings",
    "Accepted readings that were not written, as their sender was told: atomic_refused, gave_up, failed",
    ["reason"],
)
REFUSED_REQUESTS: Final = Counter(
    "fleetwatt_refused_requests", "Requests refused for their key, its scope or its rate", ["code"]
)
COMMIT_SECONDS: Final = Histogram(
    "fleetwatt_commit_seconds",
    "Time of one ingest transaction",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
BATCH_READINGS: Final = Histogram(
    "fleetwatt_batch_readings", "Readings in one transaction", buckets=(1, 10, 100, 1000, 2500, 5000, 10_000)
)
TRANSIENT_ERRORS: Final = Counter(
    "fleetwatt_transient_errors",
    "Transactions to be tried again, by class of SQLSTATE; none: the connection broke",
    ["sqlstate_class"],
)
PERMANENT_ERRORS: Final = Counter(
    "fleetwatt_permanent_errors",
    "Transactions refused for good, and taken apart to find the reading to blame, by class of SQLSTATE",
    ["sqlstate_class"],
)
BREAKER_STATE: Final = Gauge(
    "fleetwatt_breaker_state",
    "Circuit breaker before the database: 0 closed (all is well), 1 half open (a try is under way), 2 open",
)
BREAKER_OPENED: Final = Counter("fleetwatt_breaker_opened", "How often the circuit breaker opened")
BUFFER_READINGS: Final = Gauge("fleetwatt_buffer_readings", "Readings in the buffer, until their commit")
BUFFER_BYTES: Final = Gauge("fleetwatt_buffer_bytes", "Bytes of payload in the buffer, until their commit")
BUFFER_MAX_READINGS: Final = Gauge(
    "fleetwatt_buffer_max_readings", "Readings in the buffer at which senders have to wait"
)
BUFFER_MAX_BYTES: Final = Gauge(
    "fleetwatt_buffer_max_bytes", "Bytes of payload in the buffer at which senders have to wait"
)
ROLLUP_REFRESHED_UNTIL: Final = Gauge(
    "fleetwatt_rollup_refreshed_until_seconds",
    "Unix time before which every hour is rolled up, stale ones apart; 0 before the first refresh",
    ["stream"],
)
ROLLUP_REFRESHED_AT: Final = Gauge(
    "fleetwatt_rollup_refreshed_at_seconds",
    "Unix time at which a refresh last came to its end; 0 before the first one",
    ["stream"],
)
ROLLUP_FAILED_AT: Final = Gauge(
    "fleetwatt_rollup_failed_at_seconds",
    "Unix time at which a refresh last failed; 0 where none has",
    ["stream"],
)
ROLLUP_STALE_HOURS: Final = Gauge(
    "fleetwatt_rollup_stale_hours",
    "Rolled-up hours that late readings touched and that wait for a refresh",
    ["stream"],
)
ROLLUP_FAILURES: Final = Gauge(
    "fleetwatt_rollup_failures",
    "Refreshes of the rollups that have failed so far, of all processes",
    ["stream"],
)
JOB_FAILURES: Final = Gauge(
    "fleetwatt_job_failures",
    "Runs that have failed so far of what the database, or the service for it, does by itself",
    ["job"],
)
DEAD_LETTERS_WAITING: Final = Gauge(
    "fleetwatt_dead_letters_waiting", "Dead letters that wait: neither stored by a replay nor dismissed"
)
DEAD_LETTER_DISK_BYTES: Final = Gauge(
    "fleetwatt_dead_letter_disk_bytes", "What dead letters take on disk, with room that is free for new ones"
)
DEAD_LETTERS_PRUNED: Final = Counter(
    "fleetwatt_dead_letters_pruned", "Dead letters that this process deleted: too old, or too many"
)
ALERTS_OPEN: Final = Gauge("fleetwatt_alerts_open", "Open efficiency alerts", ["kind"])
ALERT_EVENTS: Final = Gauge(
    "fleetwatt_alert_events", "Alert events that wait for a channel or were given up", ["channel", "state"]
)
ALERT_DELIVERIES: Final = Counter(
    "fleetwatt_alert_deliveries",
    "Alert events by channel: delivered, failed (to be tried again), given_up",
    ["channel", "result"],
)

TRACE_SPANS: Final = Counter(
    "fleetwatt_trace_spans",
    "Spans by what became of them: ended, exported, failed; what ended and is neither waits or was dropped",
    ["result"],
)
REPLICA_STATE: Final = Gauge(
    "fleetwatt_replica_state",
    "1 for the state of the replica that answers analytics: ok, behind, away, foreign",
    ["state"],
)
REPLICA_LAG: Final = Gauge(
    "fleetwatt_replica_lag_seconds",
    "Age of the newest moment of which the replica is known to hold everything; Inf: of none",
)
REPLICA_QUESTIONS: Final = Counter(
    "fleetwatt_replica_questions",
    "Questions of analytics while there is a replica: answered by it, or why the primary was asked instead",
    ["result"],
)
STREAM_CLIENTS: Final = Gauge("fleetwatt_stream_clients", "Streams that are open (GET /v1/stream)")
STREAM_CLIENTS_MAX: Final = Gauge("fleetwatt_stream_clients_max", "Streams at which more are refused")
STREAMS_REFUSED: Final = Counter("fleetwatt_streams_refused", "Streams refused since too many were open")
STREAM_EVENTS: Final = Counter(
    "fleetwatt_stream_events", "Events sent on all streams: hello, states, beat", ["event"]
)
STREAM_STATES: Final = Counter("fleetwatt_stream_states", "States of devices sent on all streams")
STREAM_BYTES: Final = Counter("fleetwatt_stream_bytes", "Bytes of events sent on all streams")
STREAM_LOOK_SECONDS: Final = Histogram(
    "fleetwatt_stream_look_seconds",
    "Time of one look at the states in the database, for all streams of the process",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
STREAM_AS_OF: Final = Gauge(
    "fleetwatt_stream_as_of_seconds", "Unix time of the last look at the states; 0 before the first one"
)


def serve(host: str, port: int) -> None:
    """Answer /metrics for a process that has no HTTP service, from a thread that ends with it.

    Raises SettingsError where it cannot listen.
    """
    try:
        start_http_server(port, host)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}:{port} ({error.strerror}): "
            "set FLEETWATT_WORKER_METRICS_PORT to another port"
        ) from None

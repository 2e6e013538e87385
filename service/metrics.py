"""What the process counts and measures, for Prometheus. No device ids as labels."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

READINGS: Final = Counter("fleetwatt_readings", "Readings by what became of them", ["kind", "result"])
REJECTED: Final = Counter(
    "fleetwatt_rejected_readings", "Readings refused before storage", ["source", "code"]
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
    "fleetwatt_transient_errors", "Transactions repeated because the database was away"
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
ALERTS_OPEN: Final = Gauge("fleetwatt_alerts_open", "Open efficiency alerts", ["kind"])
ALERT_EVENTS: Final = Gauge(
    "fleetwatt_alert_events", "Alert events that wait for a channel or were given up", ["channel", "state"]
)
ALERT_DELIVERIES: Final = Counter(
    "fleetwatt_alert_deliveries",
    "Alert events by channel: delivered, failed (to be tried again), given_up",
    ["channel", "result"],
)

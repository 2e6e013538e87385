"""docs/variants.md is complete and true: every subject of the variants, and nothing that does not exist."""

from __future__ import annotations

import re
from typing import Any, Final

import click
import msgspec
import pytest

from service.app import create_app
from service.cli import group
from service.settings import PREFIX, Settings
from tests.support.variants import PAGE, ROOT, ROWS, VARIANTS

APP: Final = create_app(Settings(database_url="postgresql://127.0.0.1:1/none"))
DOCUMENT: Final[dict[str, Any]] = APP.openapi_schema.to_schema()

# What the variants are described by, row by row; each stands in the first cell of a row of its section.
SUBJECTS: Final[dict[str, list[str]]] = {
    "Readings": ["meterId", "vehicleId", "kwhConsumedAc", "kwhDeliveredDc", "voltage", "soc", "batteryTemp",
                 "timestamp"],
    "Which meter is whose": [
        "A, B, C: mapping table", "A: N to M", "A: `is_active`", "A: sums apart, then joined",
        "B: aggregate before joining", "A: no meter gives AC 0",
        "D: the meter and the vehicle have the same id",
        "D: readings paired within 30 s", "E: `charging_sessions`",
        "E: `vehicle`, `meter`, `started_at`, `ended_at`", "E: `is_active`",
    ],
    "Variant A": [
        "UUID", "telemetry/meter/{id}", "telemetry/vehicle/{id}", "one transaction, UPSERT hot, INSERT cold",
        "month", "mapping table, N to M, `is_active`", "GET /v1/analytics/performance/{vehicleId}",
        "dataPoints",
        "simulate D devices for S seconds over MQTT", "single", "full", "load D devices S seconds",
        "14.4 M rows a day", "10,000 messages/s at the broker", "5 to 10 ms a message",
        "24 h answer under 1 s (100 ms in trials)", "no message lost at QoS 1",
        "TLS (8883)", "device authentication", "client batches of 10 to 50", "cache", "compression",
        "dead letters", "partition creation", "retention", "metrics", "circuit breaker", "replicas",
        "rate limits", "log aggregation", "health checks",
    ],
    "Variant B": [
        "UUID", "telemetry/#", "a queue that survives a crash", "bulk INSERT by UNNEST", "month",
        "mapping table, aggregate before joining", "the same as A", "GET /v1/analytics/vehicles/states",
        "vehicleId", "soc", "kwhDeliveredDc", "batteryTemp", "lastUpdated", "seed V vehicles M meters",
        "realistic charging for N minutes", "10,000 messages/s bursts", "answers under 1 s",
        "a crash loses no queued job",
    ],
    "Variant C": [
        "meter-1", "POST /v1/telemetry", "kind told by the payload", "append-only, UPSERT",
        "partitions: none",
        "mapping table", "GET /v1/analytics/performance/{vehicleId}", "GET /health", "28.8 M rows a day",
        "index-only scans", "no full scan", "alerts under 85%", "daily partitions", "streaming consumers",
        "backpressure", "replicas", "hourly rollups",
    ],
    "Variant D": [
        "METER_001", "POST /v1/ingest/meter", "POST /v1/ingest/vehicle", "append-only, UPSERT, fillfactor 70",
        "partitions: day", "same id, readings paired within 30 s", "`period`, percent",
        "GET /v1/ingest/vehicle/{vehicleId}/current", "GET /v1/analytics/stats",
        "`GET /health`: `status`, `timestamp`, `service`, `version`", "Swagger at `/api`", "NUM_DEVICES",
        "INTERVAL_MS", "333 writes/s", "current state under 10 ms", "24 h answer under 500 ms",
        "about 1 TB a year", "100,000 devices with more API instances behind a balancer",
        "500,000 with a queue, replicas, batches, cache",
    ],
    "Variant E": [
        "METER-001", "VH-001", "POST /v1/ingestion/meter", "POST /v1/ingestion/vehicle",
        "POST /v1/ingestion/meter/batch", "POST /v1/ingestion/vehicle/batch", '{"readings": []}',
        "one transaction, bulk INSERT", "month", "charging_sessions", "periodStart", "readingsCount",
        "28.8 M rows a day", "state by one key look-up", "alarms: ratio under 0.85 means a fault",
    ],
}  # fmt: skip


@pytest.mark.parametrize("section", SUBJECTS)
def test_every_subject_has_an_answer(section: str) -> None:
    """Each route, field, command, claim and plan of a variant begins a row that says how it is here."""
    rows = [row for row in ROWS if row.section == section]
    for subject in SUBJECTS[section]:
        told = [row for row in rows if subject in row.cells[0]]
        assert told, subject
        assert all(row.cells[1] for row in told), subject


def test_rows_are_whole() -> None:
    """Every row has as many cells as its table's head: no stray bar has cut one up."""
    assert len(ROWS) > 90
    for row in ROWS:
        assert len(row.cells) == len(row.head), row.text


@pytest.mark.parametrize("name", VARIANTS)
def test_every_field_of_the_24_hour_answer(name: str) -> None:
    """The table of the 24-hour answer puts each name of a variant beside ours."""
    rows = [row for row in ROWS if row.section == "The 24-hour answer"]
    [column] = {place for row in rows for place, head in enumerate(row.head) if name in head.split(" and ")}
    for there, here in VARIANTS[name].names.items():
        row = next(row for row in rows if f"`{here}`" in row.cells[0])
        for word in there.split("."):
            assert word in row.cells[column], (there, here)
    said = {span for row in rows for span in re.findall(r"`(\w+)`", row.cells[column])}
    known = {word for there in VARIANTS[name].names for word in there.split(".")}
    assert said - known == ({"period"} if name == "D" else set())


def _shape(path: str) -> str:
    return re.sub(r"\{\w+(:\w+)?\}", "{}", path)


def test_every_route_exists() -> None:
    """A route on the page is in the OpenAPI document or a page for people."""
    exist = {
        (method.upper(), _shape(path)) for path, item in DOCUMENT["paths"].items() for method in item
    } | {("GET", _shape(route.path)) for route in APP.routes if route.path in {"/", "/api"}}
    named = list(re.finditer(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?\s]*)[^`]*`", PAGE))
    assert len(named) > 30
    assert {match[0] for match in named if (match[1], _shape(match[2])) not in exist} == set()
    # No route hides behind a missing method.
    assert re.findall(r"`/v1[^`]*`", PAGE) == []


def test_nothing_is_only_planned() -> None:
    """What the variants planned exists: no row of ours puts it off."""
    assert [row.text for row in ROWS if any("planned" in cell for cell in row.cells[1:])] == []


def test_every_command_exists() -> None:
    """Each command on the page is one of the command line, with its options."""
    context = click.Context(group)
    commands = list(re.finditer(r"`fleetwatt (\S+?)( [^`]*)?`", PAGE))
    assert len(commands) > 10
    for match in commands:
        command = group.get_command(context, match[1])
        assert command is not None, match[0]
        options = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[\w-]+", match[2] or "")) <= options, match[0]


def test_every_setting_exists() -> None:
    """Each FLEETWATT_* on the page is a setting."""
    known = {PREFIX + field.name.upper() for field in msgspec.structs.fields(Settings)}
    named = set(re.findall(rf"\b{PREFIX}\w+", PAGE))
    assert len(named) > 5
    assert named <= known


def test_every_file_and_test_exists() -> None:
    """Each file on the page is there, and each test in it."""
    for path, test in re.findall(r"`((?:tests|service|sql|docs)/[\w/.]+\.\w+)(?:::(\w+))?`", PAGE):
        assert (ROOT / path).is_file(), path
        if test:
            defined = re.findall(r"^(?:async )?def (\w+)\(", (ROOT / path).read_text(), re.MULTILINE)
            assert test in defined, (path, test)

"""Metrics: after known traffic the numbers are exactly right, and each is documented."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import msgspec
import pytest
from prometheus_client import REGISTRY

from service import paths, tallies
from service.app import create_app
from service.readings import Reading
from service.settings import Settings
from tests.support import servers
from tests.support.mqtt import METER, VEHICLE, publish, publish_raw, worker_process
from tests.support.mqtt_raw import proxy
from tests.support.scrape import Scraped, scrape, scrape_until
from tests.support.serving import Served, served
from tests.support.strategies import altered, encode, meter, vehicle

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

_PAGE = Path(paths.__file__).parents[1] / "docs/metrics.md"


async def _post(service: Served, path: str, content: bytes, status: int) -> None:
    answer = await service.client.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text


async def test_http_numbers(settings: Settings, tmp_path: Path) -> None:
    """Each reading that came over HTTP is counted where it got to, and each request by its route."""
    bad = altered(meter("m-9", 1), voltage=-1)
    other = altered(meter("m-1"), voltage=1)
    good: list[Reading] = [meter("m-1"), meter("m-1", 1), vehicle("v-1")]
    async with served(settings, tmp_path) as service:
        await _post(service, "/v1/telemetry", encode(*good, bad), 200)
        await _post(service, "/v1/telemetry", encode(*good), 200)
        await _post(service, "/v1/telemetry", encode(other), 400)
        await _post(service, "/v1/ingest/vehicle", msgspec.json.encode(altered(vehicle("v-2"))), 201)
        await _post(service, "/v1/ingest/meter", encode(meter("m-3"), meter("m-4")), 400)
        await _post(service, "/v1/telemetry?atomic=true", encode(meter("m-9"), bad), 400)
        await _post(service, "/v1/telemetry?atomic=true", encode(meter("m-8"), other), 400)
        await _post(service, "/v1/telemetry", b"{", 400)
        for method, path, status in [
            ("GET", "/v1/ingest/meter/m-1/current", 200),
            ("GET", "/v1/ingest/meter/m-404/current", 404),
            ("GET", "/nothing/m-1", 404),
            ("HEAD", "/health", 200),
            ("BREW", "/health", 405),
        ]:
            assert (await service.client.request(method, path)).status_code == status, (method, path)
        found = await scrape(f"http://localhost:{service.port}")
    assert {
        "received": found["fleetwatt_received_readings_total{source=http}"],
        "rejected": found.starting("fleetwatt_rejected_readings_total"),
        "accepted": found["fleetwatt_accepted_readings_total{source=http}"],
        "results": found.starting("fleetwatt_readings_total"),
        "given back": found.starting("fleetwatt_given_back_readings_total"),
        "lags": found.starting("fleetwatt_ingest_lag_seconds_count"),
        "batches": (found["fleetwatt_batch_readings_count"], found["fleetwatt_batch_readings_sum"]),
        "commits": found["fleetwatt_commit_seconds_count"],
        "buffer": (found["fleetwatt_buffer_readings"], found["fleetwatt_buffer_bytes"]),
    } == {
        "received": 16,
        "rejected": {"code=out_of_range,source=http": 2, "code=malformed_json,source=http": 1},
        "accepted": 10,
        "results": {
            "kind=meter,result=stored": 2,
            "kind=vehicle,result=stored": 2,
            "kind=meter,result=duplicate": 2,
            "kind=vehicle,result=duplicate": 1,
            "kind=meter,result=conflict": 1,
        },
        "given back": {"reason=atomic_refused": 2},
        "lags": {"kind=meter": 1, "kind=vehicle": 2},
        "batches": (5, 8),
        "commits": 6,
        "buffer": (0, 0),
    }
    _check_requests(found)
    assert found["fleetwatt_buffer_max_readings"] == settings.buffer_max_readings
    assert found["fleetwatt_buffer_max_bytes"] == settings.buffer_max_bytes
    assert found["fleetwatt_breaker_state"] == 0
    assert len(found.starting("fleetwatt_build_info")) == 1
    assert not [name for name in found if name.startswith("fleetwatt_mqtt_")]
    assert "m-1" not in " ".join(found)


def _check_requests(found: Scraped) -> None:
    requests = found.starting("fleetwatt_http_request_seconds_count")
    # However often the start of the service was asked for.
    requests = {key: count for key, count in requests.items() if "/health/ready" not in key}
    assert requests == {
        "method=POST,route=/v1/telemetry,status=2xx": 2,
        "method=POST,route=/v1/telemetry,status=4xx": 4,
        "method=POST,route=/v1/ingest/vehicle,status=2xx": 1,
        "method=POST,route=/v1/ingest/meter,status=4xx": 1,
        "method=GET,route=/v1/ingest/meter/{meterId}/current,status=2xx": 1,
        "method=GET,route=/v1/ingest/meter/{meterId}/current,status=4xx": 1,
        "method=GET,route=other,status=4xx": 1,
        "method=HEAD,route=/health,status=2xx": 1,
        "method=other,route=other,status=4xx": 1,
    }
    # The request for the metrics themselves.
    assert found["fleetwatt_http_requests_in_flight"] == 1
    key = "method=POST,route=/v1/telemetry,status=2xx"
    assert found[f"fleetwatt_http_request_seconds_sum{{{key}}}"] > 0
    assert found.starting("fleetwatt_http_request_seconds_bucket")[f"le=+Inf,{key}"] == 2


async def test_mqtt_numbers(mqtt_settings: Settings, broker_port: int, ready: socket.socket) -> None:
    """A worker counts messages and readings, and tells of its connection; one that breaks is counted anew."""
    port = servers.free_port()
    address = f"http://127.0.0.1:{port}"
    topic = METER + "m-1"
    async with proxy(broker_port) as between:
        changed = msgspec.structs.replace(
            mqtt_settings, mqtt_url=f"mqtt://127.0.0.1:{between.port}", worker_metrics_port=port
        )
        async with worker_process(changed, ready):
            await publish(broker_port, topic, encode(meter(), meter(minute=1)))
            await publish(broker_port, VEHICLE + "v-1", encode(vehicle()))
            await publish(broker_port, topic, encode(meter()), encode(altered(meter(), voltage=1)))
            await publish_raw(broker_port, topic, b"{")
            await publish_raw(broker_port, "telemetry/boat/b-1", encode(meter()))
            await publish_raw(broker_port, "sessions/m-1", b"{}")
            found = await scrape_until(
                address,
                lambda told: (
                    told["fleetwatt_mqtt_messages_total"] == 7
                    and not told["fleetwatt_mqtt_unacknowledged_messages"]
                ),
            )
            between.cut()
            again = await scrape_until(
                address,
                lambda told: (
                    told["fleetwatt_mqtt_connections_total"] == 2 and bool(told["fleetwatt_mqtt_connected"])
                ),
            )
    assert {
        "messages": found["fleetwatt_mqtt_messages_total"],
        "unacknowledged": found["fleetwatt_mqtt_unacknowledged_messages"],
        "connected": (found["fleetwatt_mqtt_connected"], found["fleetwatt_mqtt_connections_total"]),
        "received": found["fleetwatt_received_readings_total{source=mqtt}"],
        "rejected": found.starting("fleetwatt_rejected_readings_total"),
        "accepted": found["fleetwatt_accepted_readings_total{source=mqtt}"],
        "results": found.starting("fleetwatt_readings_total"),
        "lags": found.starting("fleetwatt_ingest_lag_seconds_count"),
        "sessions": found.starting("fleetwatt_session_messages_total"),
    } == {
        "messages": 7,
        "unacknowledged": 0,
        "connected": (1, 1),
        "received": 7,
        "rejected": {"code=malformed_json,source=mqtt": 1, "code=unknown_topic,source=mqtt": 1},
        "accepted": 5,
        "results": {
            "kind=meter,result=stored": 2,
            "kind=vehicle,result=stored": 1,
            "kind=meter,result=duplicate": 1,
            "kind=meter,result=conflict": 1,
        },
        "lags": {"kind=meter": 1, "kind=vehicle": 1},
        "sessions": {"result=refused": 1},
    }
    assert found["fleetwatt_mqtt_receive_maximum"] == mqtt_settings.mqtt_receive_maximum
    assert (again["fleetwatt_mqtt_connected"], again["fleetwatt_mqtt_connections_total"]) == (1, 2)


def test_every_metric_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/metrics.md names each metric by the name and the labels that /metrics has, and no other."""
    assert callable(create_app), "by its import all of them are there"
    monkeypatch.setattr(tallies.MQTT, "receive_maximum", 1)
    told = set()
    for family in REGISTRY.collect():
        if family.name.startswith("fleetwatt_"):
            ending = {"counter": "_total", "info": "_info"}.get(family.type, "")
            told.add(family.name + ending)
            assert family.documentation, family.name
            assert "_id" not in " ".join(name for sample in family.samples for name in sample.labels)
    page = _PAGE.read_text()
    documented = re.findall(r"^\| `(fleetwatt_\w+)", page, re.MULTILINE)
    assert sorted(documented) == sorted(told)
    # Alarms, too, are about what there is.
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"fleetwatt_\w+", page)} == told

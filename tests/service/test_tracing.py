"""Traces: spans of requests, messages and commits reach a collector, and none of it holds up ingest."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import msgspec
import pytest

from service import otel, paths, tracing
from service.errors import SettingsError
from service.settings import Settings
from tests.support import servers
from tests.support.collector import Collector, Taken, collecting
from tests.support.mqtt import METER, METERS, eventually, publish_raw, worker_process
from tests.support.mqtt_raw import RawClient, text
from tests.support.scrape import scrape, scrape_until
from tests.support.serving import served
from tests.support.strategies import Owner, encode, meter, serving, vehicle

pytestmark = [pytest.mark.anyio, pytest.mark.either_edition]

_ROOT: Final = Path(paths.__file__).parents[1]
_TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
_PARENT: Final = "b7ad6b7169203331"
SAMPLED: Final = f"00-{_TRACE}-{_PARENT}-01"
NOT_SAMPLED: Final = f"00-{_TRACE}-{_PARENT}-00"
SERVER, CLIENT, CONSUMER = 2, 3, 5


@pytest.fixture(autouse=True)
def _loud_again() -> None:
    """Undo what a process that traces does to the library's log."""
    logging.getLogger("opentelemetry").setLevel(logging.NOTSET)


def _named(spans: list[Taken], name: str) -> list[Taken]:
    return [span for span in spans if span.name == name]


async def _wait(collector: Collector, count: int) -> list[Taken]:
    return await asyncio.to_thread(collector.wait, lambda spans: len(spans) >= count)


async def test_requests_and_their_commit(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request goes on with the sender's trace; its commit is a span of its own, linked both ways."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    with collecting() as collector:
        async with serving(settings, traces_url=collector.url, writers=1) as api:
            path = "/v1/telemetry"
            sent = await api.post(path, content=encode(meter()), headers={"traceparent": SAMPLED})
            assert sent.status_code == 200
            assert (await api.get("/v1/ingest/meter/m-404/current")).status_code == 404
            assert (await api.post(path, content=b"{", headers={"traceparent": "00-nonsense"})).is_error
            assert (await api.get("/health", headers={"traceparent": NOT_SAMPLED})).is_success
            spans = await _wait(collector, 5)
    assert collector.paths == {"/v1/traces"}
    assert {
        "service.name": "fleetwatt",
        "service.instance.id": "http/8080",
        "deployment.environment.name": "test",
    }.items() <= collector.resources[0].items()
    assert len(spans) == 5
    request, refused = _named(spans, "POST /v1/telemetry")
    assert (request.kind, request.trace_id, request.parent_id) == (SERVER, _TRACE, _PARENT)
    assert request.values == {
        "http.request.method": "POST",
        "http.route": path,
        "http.response.status_code": 200,
    }
    commit, letters = _named(spans, "commit")
    assert (commit.kind, commit.parent_id, commit.failed) == (CLIENT, "", False)
    assert commit.trace_id != _TRACE
    assert (commit.links, request.links) == ([request.span_id], [commit.span_id])
    assert (commit.values["fleetwatt.readings"], commit.values["fleetwatt.payloads"]) == (1, 1)
    # A context that cannot be read begins a trace of its own; what it refused is committed as a dead letter.
    assert (refused.parent_id, refused.values["http.response.status_code"]) == ("", 400)
    assert (letters.links, letters.values["fleetwatt.readings"]) == ([refused.span_id], 0)
    [unknown] = _named(spans, "GET /v1/ingest/meter/{meterId}/current")
    assert (unknown.failed, unknown.values["http.response.status_code"]) == (False, 404)


async def test_many_requests_share_a_commit(
    settings: Settings, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The span of a commit is linked to each request that it serves, and each of them to it."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collecting() as collector:
        async with serving(settings, traces_url=collector.url, writers=1) as api:
            await api.post("/v1/telemetry", content=encode(meter("m-0")))
            async with owner.transaction():
                await owner.execute("lock table meter_reading in exclusive mode")
                first = asyncio.create_task(api.post("/v1/telemetry", content=encode(meter("m-1"))))
                await eventually(owner, _LOCKED, 1)
                others = [
                    asyncio.create_task(api.post("/v1/telemetry", content=encode(meter(f"m-{number}"))))
                    for number in range(2, 7)
                ]
                while len(others) > (await _buffered(api)) - 1:
                    await asyncio.sleep(0.02)
            assert all(answer.is_success for answer in await asyncio.gather(first, *others))
            spans = await _wait(collector, 7 + 3)
    commits = _named(spans, "commit")
    assert sorted(len(commit.links) for commit in commits) == [1, 1, 5]
    [shared] = [commit for commit in commits if len(commit.links) == 5]
    served_by = [span for span in _named(spans, "POST /v1/telemetry") if span.links == [shared.span_id]]
    assert sorted(span.span_id for span in served_by) == sorted(shared.links)


_LOCKED: Final = (
    "select least(count(*), 1) as n from pg_locks where not granted and relation = 'meter_reading'::regclass"
)


async def _buffered(api: httpx.AsyncClient) -> int:
    text_of = (await api.get("/metrics", headers={"traceparent": NOT_SAMPLED})).text
    [line] = [line for line in text_of.splitlines() if line.startswith("fleetwatt_buffer_readings ")]
    return int(float(line.split()[1]))


async def test_messages(
    mqtt_settings: Settings,
    broker_port: int,
    owner: Owner,
    ready: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """User properties carry the trace; what they, or the share of all others, leave out has no span."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collecting() as collector:
        changed = msgspec.structs.replace(mqtt_settings, traces_url=f"{collector.url}/otlp", traces_ratio=0)
        async with worker_process(changed, ready), RawClient(broker_port) as device:
            assert await device.connect("device") == 0
            topic = METER + "m-1"
            properties = b"\x03" + text("application/json") + b"\x26" + text("site") + text("north")
            properties += b"\x26" + text("traceparent") + text(SAMPLED)
            properties += b"\x26" + text("tracestate") + text("a=b")
            assert await device.publish(topic, encode(meter()), properties=properties) == 0
            unsampled = b"\x26" + text("traceparent") + text(NOT_SAMPLED)
            assert await device.publish(topic, encode(meter(minute=1)), properties=unsampled) == 0
            await publish_raw(broker_port, topic, encode(meter(minute=2)))
            await eventually(owner, METERS, 3)
            spans = await _wait(collector, 2)
    assert collector.paths == {"/otlp"}
    assert collector.resources[0]["service.instance.id"] == f"mqtt/{mqtt_settings.mqtt_client_id}"
    assert sorted(span.name for span in spans) == ["commit", "process telemetry"]
    [message], [commit] = _named(spans, "process telemetry"), _named(spans, "commit")
    assert (message.kind, message.trace_id, message.parent_id) == (CONSUMER, _TRACE, _PARENT)
    assert (message.links, commit.links) == ([commit.span_id], [message.span_id])
    assert message.values == {
        "messaging.system": "mqtt",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": topic,
        "messaging.message.body.size": len(encode(meter())),
    }


async def test_a_collector_that_hangs_holds_up_nothing(settings: Settings, tmp_path: Path) -> None:
    """While an export gets no answer readings are stored, spans beyond the queue are dropped and counted."""
    with collecting() as collector:
        collector.open.clear()
        queue = {"OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in queue.items():
                patch.setenv(name, value)
            async with served(settings, tmp_path, TRACES_URL=collector.url) as service:
                address = f"http://localhost:{service.port}"
                await scrape_until(address, lambda _: collector.asked > 0)
                for number in range(50):
                    sent = await service.client.post("/v1/telemetry", content=encode(vehicle(f"v-{number}")))
                    assert sent.status_code == 200
                found = await scrape(address)
                log = service.log
    told = found.starting("fleetwatt_trace_spans_total")
    # 50 requests and their commits.
    assert told["result=ended"] >= 100
    assert told.get("result=exported", 0) == 0
    assert "Queue full" not in log
    assert "Traceback" not in log


async def test_the_end_does_not_wait_for_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process ends soon though each of many exports that are left would wait for an answer."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    with collecting() as collector:
        collector.open.clear()
        traces = tracing.start(Settings(traces_url=collector.url), "test")
        assert traces is not None
        for _ in range(10):
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            traces.message("telemetry/meter/m-1", b"", b"", lambda _topic, _payload, done=done: done)  # type: ignore[misc]
            done.set_result(None)
        await asyncio.sleep(0)
        # The library would wait for 30 s.
        async with asyncio.timeout(20):
            await traces.close()


async def test_a_collector_that_is_away_is_told_once(settings: Settings, tmp_path: Path) -> None:
    """A collector that refuses connections is one line of the log without what is secret in its address."""
    secret = "cAnArY"
    url = f"http://user:{secret}@127.0.0.1:{servers.free_port()}/{secret}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        async with served(settings, tmp_path, TRACES_URL=url) as service:
            address = f"http://localhost:{service.port}"
            found = await scrape_until(
                address, lambda told: told.get("fleetwatt_trace_spans_total{result=failed}", 0) > 0
            )
            assert found["fleetwatt_trace_spans_total{result=failed}"] > 0
            lines = [msgspec.json.decode(line) for line in service.log.splitlines()]
            assert secret not in service.log
    assert [line["event"] for line in lines if line["component"] == "traces"] == ["traces_not_exported"]


async def test_log_lines_name_the_trace(settings: Settings, owner: Owner, tmp_path: Path) -> None:
    """What is logged while a request is handled carries its trace id, so that one finds the other."""
    with collecting() as collector:
        async with served(settings, tmp_path, TRACES_URL=collector.url) as service:
            await owner.execute("alter table meter_state rename to elsewhere")
            for traceparent in (SAMPLED, NOT_SAMPLED):
                await service.client.get("/v1/ingest/meter/m-1/current", headers={"traceparent": traceparent})
            lines = [msgspec.json.decode(line) for line in service.log.splitlines()]
    told = [line.get("trace_id") for line in lines if line["event"] == "database_error"]
    assert told == [_TRACE, None]


@pytest.mark.parametrize("url", ["collector:4318", "grpc://collector:4317", "http://", "/v1/traces"])
def test_an_address_that_cannot_be_read(url: str) -> None:
    """A mistake in the address ends the start, and the message shows a good one."""
    with pytest.raises(SettingsError, match="FLEETWATT_TRACES_URL must look like http://host:4318/v1/traces"):
        tracing.check(Settings(traces_url=url))


def test_without_the_extra() -> None:
    """Where OpenTelemetry is not installed the error names the extra, and without the setting all works."""
    code = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from service import app, tracing\n"
        "from service.settings import Settings\n"
        "assert tracing.start(Settings(), 'x') is None\n"
        "try:\n    tracing.check(Settings(traces_url='http://127.0.0.1:4318'))\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.startswith("SettingsError ")
    assert "with the extra `tracing`" in told.stdout


def test_off_unless_asked_for() -> None:
    """A service without the setting imports nothing of OpenTelemetry."""
    code = "import sys, service.app; print([name for name in sys.modules if 'opentelemetry' in name])"
    told = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


@pytest.mark.parametrize(
    "raw",
    [
        b"\x26",
        b"\x26\x00\x0btraceparent",
        b"\x26" + text(b"traceparent\xff") + text("x"),
        b"\x7f" + text("traceparent"),
        b"\x02\x00traceparent",
    ],
)
def test_properties_that_cannot_be_read(raw: bytes) -> None:
    """Properties that no broker lets through are no context; they harm nothing."""
    assert "traceparent" not in otel._user_properties(raw)  # noqa: SLF001 - what brokers never pass on

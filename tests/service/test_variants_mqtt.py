"""Variants A and B over MQTT: their topics and ids through a real broker and a worker process of its own."""

from __future__ import annotations

import signal
import socket
from datetime import datetime
from typing import Any, Final

import msgspec
import pytest

from service.settings import Settings
from tests.support.mqtt import METERS, VEHICLES, WAITING, eventually, publish, worker_process
from tests.support.strategies import Api, Owner, encode, rows
from tests.support.variants import VARIANTS, in_its_words, payloads

pytestmark = pytest.mark.anyio

A, B = VARIANTS["A"], VARIANTS["B"]
LONG_AGO: Final = "2026-01-01T00:00:00Z"


def lines(readings: list[dict[str, Any]]) -> list[bytes]:
    """Write each reading as a message of its own."""
    return [msgspec.json.encode(reading) for reading in readings]


async def map_meter(api: Api, vehicle_id: str, meter_id: str) -> None:
    """Tell that a meter is a vehicle's, for good."""
    body = {"vehicleId": vehicle_id, "meterId": meter_id, "startedAt": LONG_AGO}
    response = await api.post("/v1/sessions", json=body)
    assert response.status_code == 201, response.text


async def test_a_over_mqtt(
    mqtt_settings: Settings, broker_port: int, owner: Owner, api: Api, ready: socket.socket
) -> None:
    """A: UUIDs in topic and payload, the latest state and the history in one transaction, and its answer."""
    meters, vehicles = payloads(A)
    async with worker_process(mqtt_settings, ready):
        await publish(broker_port, f"telemetry/meter/{A.meter_id}", *lines(meters))
        await publish(broker_port, f"telemetry/vehicle/{A.vehicle_id}", *lines(vehicles))
        await eventually(owner, METERS, 10)
        await eventually(owner, VEHICLES, 10)
        # A late one is history; the latest state stays.
        late = {**meters[0], "timestamp": LONG_AGO}
        await publish(broker_port, f"telemetry/meter/{A.meter_id}", *lines([late]))
        await eventually(owner, METERS, 11)
    for kind, device_id, newest in (
        ("meter", A.meter_id, meters[-1]),
        ("vehicle", A.vehicle_id, vehicles[-1]),
    ):
        [stored] = await rows(
            owner,
            f"select s.recorded_at, s.updated_at = r.ingested_at as together from {kind}_state as s "  # noqa: S608
            f"join {kind}_reading as r using ({kind}_id, recorded_at)",
        )
        assert stored == {"recorded_at": datetime.fromisoformat(newest["timestamp"]), "together": True}
        state = (await api.get(f"/v1/ingest/{kind}/{device_id}/current")).json()
        assert datetime.fromisoformat(state["timestamp"]) == stored["recorded_at"]
    answer = (await api.get(f"/v1/analytics/performance/{A.vehicle_id}")).json()
    assert in_its_words(A, answer)["totalAcConsumption"] == 0
    await map_meter(api, A.vehicle_id, A.meter_id)
    answer = (await api.get(f"/v1/analytics/performance/{A.vehicle_id}")).json()
    assert in_its_words(A, answer) == {
        "vehicleId": A.vehicle_id,
        "totalAcConsumption": pytest.approx(10),
        "totalDcDelivery": pytest.approx(8.15),
        "efficiencyRatio": 0.815,
        "avgBatteryTemp": 24.5,
        "dataPoints": 10,
    }


@pytest.mark.parametrize("size", [10, 25, 50])
async def test_a_client_batches(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket, size: int
) -> None:
    """A planned batches of 10 to 50 readings in a message: an array or an envelope is stored whole."""
    meters, vehicles = payloads(A, size)
    async with worker_process(mqtt_settings, ready):
        await publish(broker_port, f"telemetry/meter/{A.meter_id}", encode(*meters))
        envelope = msgspec.json.encode({"readings": vehicles})
        await publish(broker_port, f"telemetry/vehicle/{A.vehicle_id}", envelope)
        await eventually(owner, METERS, size)
        await eventually(owner, VEHICLES, size)
    together = await rows(owner, "select count(distinct ingested_at) as n from meter_reading")
    assert together == [{"n": 1}]


async def test_a_uuid_is_compared_as_text(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """A UUID in capitals is another device, as the page warns, and a topic must agree to the letter."""
    [small], _ = payloads(A, 1)
    large = {**small, "meterId": A.meter_id.upper()}
    async with worker_process(mqtt_settings, ready):
        await publish(broker_port, f"telemetry/meter/{A.meter_id}", *lines([small, large]))
        await publish(broker_port, f"telemetry/meter/{A.meter_id.upper()}", *lines([large]))
        await eventually(owner, METERS, 2)
        await eventually(owner, "select count(*) as n from dead_letter where code = 'id_mismatch'", 1)


async def test_b_topics_and_states(
    mqtt_settings: Settings, broker_port: int, owner: Owner, api: Api, ready: socket.socket
) -> None:
    """B: what it published under telemetry/# arrives, and its list of states has its fields."""
    meters, vehicles = payloads(B, 2)
    async with worker_process(mqtt_settings, ready):
        # Deeper than a device: B's filter took it, ours does not.
        await publish(broker_port, f"telemetry/meter/{B.meter_id}/raw", *lines(meters))
        await publish(broker_port, f"telemetry/charger/{B.meter_id}", *lines(meters[:1]))
        await publish(broker_port, f"telemetry/meter/{B.meter_id}", *lines(meters))
        await publish(broker_port, f"telemetry/vehicle/{B.vehicle_id}", *lines(vehicles))
        await publish(broker_port, f"telemetry/vehicle/{A.vehicle_id}", *lines(payloads(A, 1)[1]))
        await eventually(owner, VEHICLES, 3)
        await eventually(owner, METERS, 2)
    assert await rows(owner, "select code from dead_letter") == [{"code": "unknown_topic"}]
    page = (await api.get("/v1/analytics/vehicles/states?limit=1")).json()
    assert (page["next"], [state["vehicleId"] for state in page["vehicles"]]) == (
        A.vehicle_id,
        [A.vehicle_id],
    )
    page = (await api.get(f"/v1/analytics/vehicles/states?after={page['next']}")).json()
    [state], newest = page["vehicles"], vehicles[-1]
    fields = ("vehicleId", "soc", "kwhDeliveredDc", "batteryTemp")
    assert {name: state[name] for name in fields} == {name: newest[name] for name in fields}
    assert datetime.fromisoformat(state["lastUpdated"]) >= datetime.fromisoformat(newest["timestamp"])


async def test_b_a_crash_loses_no_queued_job(
    mqtt_settings: Settings, broker_port: int, owner: Owner, ready: socket.socket
) -> None:
    """B's claim: a worker is killed in the middle of a burst, another comes: all is stored, each once."""
    topic, messages = f"telemetry/meter/{B.meter_id}", lines(payloads(B, 1000)[0])
    async with worker_process(mqtt_settings, ready) as worker:
        await publish(broker_port, topic, *messages[:500])
        await eventually(owner, METERS, 500)
        async with owner.transaction():
            # From here on the worker takes messages and cannot store them: that is its queue.
            await owner.execute("lock table meter_reading in access exclusive mode")
            await publish(broker_port, topic, *messages[500:])
            await eventually(owner, WAITING, 1)
            worker.send_signal(signal.SIGKILL)
            await worker.wait()
            # The server finds out that nobody waits for the statement any more.
            await eventually(owner, WAITING, 0)
    assert await rows(owner, METERS) == [{"n": 500}]
    async with worker_process(mqtt_settings, ready):
        await eventually(owner, METERS, 1000)
    [counted] = await rows(
        owner, "select sum(accepted)::int as n, sum(conflicts)::int as c from ingest_minute"
    )
    assert counted == {"n": 1000, "c": 0}

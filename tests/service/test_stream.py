"""The live stream over HTTP: what is told, and to whom; each test runs `fleetwatt serve` as a process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from service.readings import Reading
from service.settings import Settings
from tests.support.events import Listener
from tests.support.http import get, store
from tests.support.serving import PATIENCE_S, served
from tests.support.strategies import as_json, meter, vehicle

pytestmark = pytest.mark.anyio

Owner = AsyncConnection[dict[str, Any]]


async def test_a_change_is_told_as_the_pages_tell_it(settings: Settings, tmp_path: Path) -> None:
    """Nothing is told of what was there before hello; what changes then is, as pages of states tell it."""
    async with served(settings, tmp_path) as running:
        await store(running.client, meter("m-old"), vehicle("v-old"))
        async with Listener.open(running.port) as listener:
            assert listener.status == 200
            head = listener.head.lower()
            assert b"content-type: text/event-stream" in head
            assert b"cache-control: no-store" in head
            assert await listener.chunk() == b"retry: 2000\n\n"
            [hello] = await listener.until("hello")
            assert hello.data.keys() == {"time", "asOf"}
            await store(running.client, meter("m-1", 1), vehicle("v-1", 1))
            told = await listener.states("m-1", "v-1")
            assert told.keys() == {"m-1", "v-1"}
            await store(running.client, meter("m-old", 5))
            told |= await listener.states("m-old")
        pages = await get(running.client, "/v1/analytics/vehicles/states")
        assert told["v-1"] in pages["vehicles"]
        pages = await get(running.client, "/v1/analytics/meters/states")
        assert [told["m-1"], told["m-old"]] == pages["meters"]


async def test_filters(settings: Settings, tmp_path: Path) -> None:
    """A kind, or some devices of either kind: others are never told."""
    async with (
        served(settings, tmp_path) as running,
        Listener.open(running.port, "?kind=vehicle") as vehicles,
        Listener.open(running.port, "?kind=meter") as meters,
        Listener.open(running.port, "?vehicleId=v-1&vehicleId=v-2&meterId=m-2") as some,
        Listener.open(running.port, "?kind=meter,vehicle") as all_of_them,
    ):
        for each in (vehicles, meters, some, all_of_them):
            await each.hello()
        readings: list[Reading] = [meter("m-1"), meter("m-2"), *map(vehicle, ("v-1", "v-2", "v-3"))]
        await store(running.client, *readings)
        assert (await vehicles.states("v-1", "v-2", "v-3")).keys() == {"v-1", "v-2", "v-3"}
        assert (await meters.states("m-1", "m-2")).keys() == {"m-1", "m-2"}
        assert (await some.states("m-2", "v-1", "v-2")).keys() == {"m-2", "v-1", "v-2"}
        assert len(await all_of_them.states("m-1", "m-2", "v-1", "v-2", "v-3")) == 5


@pytest.mark.either_edition
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?kind=car", "kind"),
        ("?kind=", "kind"),
        ("?vehicleId=a%20b", "vehicleId"),
        ("?meterId=", "meterId"),
        ("?kind=meter&vehicleId=v", "vehicleId"),
        ("?" + "&".join(f"vehicleId=v-{number}&meterId=m-{number}" for number in range(51)), "vehicleId"),
    ],
)
async def test_bad_parameters(settings: Settings, tmp_path: Path, query: str, field: str) -> None:
    """What cannot be meant is refused, with the parameter to blame."""
    async with served(settings, tmp_path) as running:
        response = await running.client.get(f"/v1/stream{query}")
        assert response.status_code == 400
        assert response.headers["content-type"] == "application/problem+json"
        assert (response.json()["code"], response.json()["field"]) == ("bad_parameter", field)


@pytest.mark.either_edition
async def test_many_changes_come_in_several_events(settings: Settings, tmp_path: Path) -> None:
    """No event holds more than 1,000 states, and none of 2,500 is missing or told twice."""
    async with served(settings, tmp_path) as running, Listener.open(running.port) as listener:
        await listener.hello()
        readings = [meter(f"m-{number:04}") for number in range(2500)]
        response = await running.client.post("/v1/telemetry", json=[as_json(each) for each in readings])
        assert response.json()["accepted"] == 2500
        told: list[str] = []
        async with asyncio.timeout(PATIENCE_S):
            async for event in listener.events():
                told += [state["meterId"] for state in event.data["meters"]]
                assert len(event.data["meters"]) <= 1000
                if len(told) >= 2500:
                    break
        assert sorted(told) == [reading.device_id for reading in readings]


@pytest.mark.either_edition
async def test_a_late_commit_is_not_missed(settings: Settings, owner: Owner, tmp_path: Path) -> None:
    """A transaction that began before others and ends after them is told, though its states look older."""
    async with served(settings, tmp_path) as running, Listener.open(running.port) as listener:
        await listener.hello()
        # The chunk is there: nobody waits for whoever makes it.
        await store(running.client, meter("m-first"))
        async with owner.transaction():
            await owner.execute(
                "insert into meter_reading (meter_id, recorded_at, kwh_consumed_ac, voltage)"
                " values ('m-slow', '2026-01-31T12:00:00Z', 1, 230)"
            )
            for minute in range(2):
                await store(running.client, meter("m-fast", minute))
                await listener.states("m-fast")
        await store(running.client, meter("m-fast", 2))
        assert "m-slow" in await listener.states("m-slow")


@pytest.mark.either_edition
async def test_a_head_ends(settings: Settings, tmp_path: Path) -> None:
    """HEAD gets the head of a stream and nothing more, and takes no place."""
    async with served(settings, tmp_path, STREAM_CLIENTS_MAX=0) as running:
        response = await running.client.head("/v1/stream")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")


@pytest.mark.either_edition
async def test_packed(settings: Settings, tmp_path: Path) -> None:
    """A client that takes gzip, as browsers do, is told the same, each event as it comes."""
    async with served(settings, tmp_path) as running:
        headers = "Accept-Encoding: gzip, br\r\n"
        async with (
            Listener.open(running.port, headers=headers) as first,
            Listener.open(running.port) as plain,
        ):
            assert b"content-encoding: gzip" in first.head.lower()
            assert b"vary: accept-encoding" in first.head.lower()
            await first.hello()
            await plain.hello()
            await store(running.client, meter("m-1"))
            assert await first.states("m-1") == await plain.states("m-1")
            # Who comes later takes part in what is packed for all.
            async with Listener.open(running.port, headers=headers) as later:
                await later.hello()
                await store(running.client, meter("m-2"))
                assert await later.states("m-2") == await first.states("m-2")


@pytest.mark.either_edition
async def test_what_may_be_sent_is_bounded(settings: Settings, tmp_path: Path) -> None:
    """Past the bytes a second that all streams may take clients wait, and none misses anything."""
    ids = [f"m-{number:03}" for number in range(400)]
    async with (
        served(settings, tmp_path, STREAM_BYTES_PER_S=64 * 1024) as running,
        Listener.open(running.port) as first,
        Listener.open(running.port) as second,
    ):
        await first.hello()
        await second.hello()
        for minute in range(3):
            await store(running.client, *[meter(each, minute) for each in ids])
        newest = as_json(meter("m-000", 2))["timestamp"].replace("+00:00", "Z")
        for listener in (first, second):
            told: dict[str, Any] = {}
            while set(told) != set(ids) or any(each["timestamp"] != newest for each in told.values()):
                told |= await listener.states()


@pytest.mark.either_edition
async def test_beats(settings: Settings, tmp_path: Path) -> None:
    """When nothing happens there is a beat, which tells as of when states are known."""
    async with served(settings, tmp_path) as running, Listener.open(running.port) as listener:
        [hello, beat] = await listener.until("beat")
        assert hello.name == "hello"
        assert beat.data["asOf"] > hello.data["asOf"]
        assert beat.data["time"] >= beat.data["asOf"]

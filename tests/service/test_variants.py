"""What the earlier variants ask over HTTP, each with its own ids; docs/variants.md is the page about it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tests.support.strategies import Api, Owner, problem, rfc3339, rows
from tests.support.variants import VARIANTS, Variant, in_its_words, payloads

pytestmark = pytest.mark.anyio

A, C, D, E = (VARIANTS[name] for name in "ACDE")
every_variant: Final = pytest.mark.parametrize("name", VARIANTS)
HISTORY: Final = "select (select count(*) from meter_reading) + (select count(*) from vehicle_reading) as n"


async def ask(api: Api, address: str) -> dict[str, Any]:
    """Ask for what is there."""
    response = await api.get(address)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def send(api: Api, address: str, body: Any) -> dict[str, Any]:
    """Post what is taken."""
    response = await api.post(address, json=body)
    assert response.status_code == (200 if isinstance(body, list) or "readings" in body else 201), (
        response.text
    )
    answer: dict[str, Any] = response.json()
    return answer


async def map_meter(api: Api, variant: Variant, **changes: Any) -> dict[str, Any]:
    """Do what a row of a mapping table did: the meter is the vehicle's since an hour ago, without an end."""
    start = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    body = {"vehicleId": variant.vehicle_id, "meterId": variant.meter_id, "startedAt": start}
    return await send(api, "/v1/sessions", body | changes)


async def send_as(api: Api, name: str, meters: list[dict[str, Any]], vehicles: list[dict[str, Any]]) -> None:
    """Send readings over HTTP at the addresses of a variant; those of A and B, which had none, as C does."""
    if name == "E":
        await send(api, "/v1/ingestion/meter/batch", {"readings": meters})
        await send(api, "/v1/ingestion/vehicle/batch", {"readings": vehicles})
        return
    for meter, vehicle in zip(meters, vehicles, strict=True):
        places = ("/v1/ingest/meter", "/v1/ingest/vehicle") if name == "D" else ("/v1/telemetry",) * 2
        assert await send(api, places[0], meter) == {"accepted": 1, "duplicates": 0}
        assert await send(api, places[1], vehicle) == {"accepted": 1, "duplicates": 0}


@every_variant
async def test_the_24_hour_answer(api: Api, name: str) -> None:
    """Readings at each variant's addresses and with its ids give its answer, under the names on the page."""
    variant = VARIANTS[name]
    await send_as(api, name, *payloads(variant))
    await map_meter(api, variant)
    answer = await ask(api, f"/v1/analytics/performance/{variant.vehicle_id}")
    expected: dict[str, Any] = {
        "vehicleId": variant.vehicle_id,
        "periodStart": answer["periodStart"],
        "periodEnd": answer["periodEnd"],
        "totalAcConsumedKwh": pytest.approx(10),
        "totalDcDeliveredKwh": pytest.approx(10 * variant.ratio),
        "efficiencyRatio": variant.ratio,
        "avgBatteryTemp": 24.5,
        "readingsCount.vehicle": 10,
        "readingsCount.meter": 10,
    }
    assert in_its_words(variant, answer) == {there: expected[here] for there, here in variant.names.items()}
    start, end = (datetime.fromisoformat(answer[edge]) for edge in ("periodStart", "periodEnd"))
    assert end - start == timedelta(hours=24)
    assert abs(datetime.now(UTC) - end) < timedelta(minutes=1)
    if name == "D":
        assert round(100 * answer["efficiencyRatio"], 2) == 87.52


@every_variant
async def test_no_meter_gives_ac_0(api: Api, name: str) -> None:
    """A vehicle without a meter has AC 0 and no ratio, however much its meter counted for itself."""
    variant = VARIANTS[name]
    await send_as(api, name, *payloads(variant))
    answer = await ask(api, f"/v1/analytics/performance/{variant.vehicle_id}")
    assert (answer["totalAcConsumedKwh"], answer["efficiencyRatio"]) == (0, None)
    assert answer["totalDcDeliveredKwh"] == pytest.approx(10 * variant.ratio)
    assert answer["readingsCount"] == {"vehicle": 10, "meter": 0}
    problem(await api.get("/v1/analytics/performance/never-seen"), 404, "unknown_device")


async def test_a_mapping_of_n_to_m(api: Api) -> None:
    """Several active meters of a vehicle add up; a second active vehicle of a meter is refused by name."""
    second = A._replace(meter_id=VARIANTS["B"].meter_id)
    for variant in (A, second):
        await send(api, "/v1/telemetry", payloads(variant, ac_kwh=3)[0])
        await map_meter(api, variant, sessionId=f"map-{variant.meter_id}")
    answer = await ask(api, f"/v1/analytics/performance/{A.vehicle_id}")
    assert answer["totalAcConsumedKwh"] == pytest.approx(6)
    taken = {"vehicleId": "other", "meterId": A.meter_id, "startedAt": datetime.now(UTC).isoformat()}
    refused = problem(await api.post("/v1/sessions", json=taken), 409, "session_overlap")
    assert refused["other"]["sessionId"] == f"map-{A.meter_id}"
    # is_active is an open end: what is ended is no longer active, and the meter is free.
    active = await ask(api, f"/v1/sessions?open=true&vehicleId={A.vehicle_id}")
    assert {row["meterId"] for row in active["sessions"]} == {A.meter_id, second.meter_id}
    ended = await api.patch(f"/v1/sessions/map-{A.meter_id}", json={"endedAt": taken["startedAt"]})
    assert ended.status_code == 200, ended.text
    active = await ask(api, f"/v1/sessions?open=true&vehicleId={A.vehicle_id}")
    assert [row["meterId"] for row in active["sessions"]] == [second.meter_id]
    await send(api, "/v1/sessions", taken)


async def test_a_standing_assignment(api: Api) -> None:
    """PUT .../meter is the row of a mapping table: with D's one id for both sides, again, and taken away."""
    await send_as(api, "D", *payloads(D))
    address = f"/v1/vehicles/{D.vehicle_id}/meter"
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    for _ in range(2):
        told = await api.put(address, json={"meterId": D.meter_id, "since": since})
        assert told.status_code == 200, told.text
        listed = (await ask(api, f"/v1/sessions?vehicleId={D.vehicle_id}"))["sessions"]
        assert [(row["meterId"], row["endedAt"]) for row in listed] == [(D.meter_id, None)]
    answer = await ask(api, f"/v1/analytics/performance/{D.vehicle_id}")
    assert (answer["efficiencyRatio"], answer["totalAcConsumedKwh"]) == (0.8752, pytest.approx(10))
    told = await api.put(address, json={"meterId": None})
    assert told.status_code == 200, told.text
    assert (await ask(api, f"/v1/sessions?open=true&vehicleId={D.vehicle_id}"))["sessions"] == []


async def test_c_telemetry(api: Api, owner: Owner) -> None:
    """C: one address for both kinds, append-only history, the newest state kept, a probe."""
    meters, vehicles = payloads(C, 3)
    for place in (2, 0, 1):
        assert await send(api, "/v1/telemetry", meters[place]) == {"accepted": 1, "duplicates": 0}
        assert await send(api, "/v1/telemetry", vehicles[place]) == {"accepted": 1, "duplicates": 0}
    assert await send(api, "/v1/telemetry", meters[0]) == {"accepted": 0, "duplicates": 1}
    altered = {**meters[0], "voltage": 1}
    problem(await api.post("/v1/telemetry", json=altered), 400, "conflict")
    assert await rows(owner, HISTORY) == [{"n": 6}]
    for kind, newest in (("meter", meters[2]), ("vehicle", vehicles[2])):
        state = await ask(api, f"/v1/ingest/{kind}/{newest[f'{kind}Id']}/current")
        assert {**newest, "timestamp": state["timestamp"]}.items() <= state.items()
        assert datetime.fromisoformat(state["timestamp"]) == datetime.fromisoformat(newest["timestamp"])
    assert (await ask(api, "/health"))["status"] == "ok"


async def test_d_reads(api: Api, owner: Owner) -> None:
    """D: current state, figures, probe, API page, and room on the pages of the latest state."""
    meters, vehicles = payloads(D, 4)
    await send_as(api, "D", meters, vehicles)
    state = await ask(api, "/v1/ingest/vehicle/METER_001/current")
    assert {name: state[name] for name in ("vehicleId", "soc", "batteryTemp")} == {
        "vehicleId": "METER_001", "soc": 43, "batteryTemp": 25,
    }  # fmt: skip
    assert (await ask(api, "/v1/ingest/meter/METER_001/current"))["voltage"] == 229.5
    stats = await ask(api, "/v1/analytics/stats")
    assert stats["devices"] == {"meters": 1, "vehicles": 1}
    assert stats["readings"]["meter"]["accepted"] == stats["readings"]["vehicle"]["accepted"] == 4
    assert stats["ingest"]["readingsPerSecond"] > 0
    assert all(stats["storage"][table]["bytes"] > 0 for table in ("meter_reading", "vehicle_reading"))
    health = await ask(api, "/health")
    assert set(health) == {"status", "timestamp", "service", "version"}
    assert health["status"] == "ok"
    page = await api.get("/api")
    assert page.headers["content-type"].startswith("text/html")
    described = (await ask(api, "/api/openapi.json"))["paths"]
    assert {"/v1/ingest/meter", "/v1/ingest/vehicle", "/v1/ingest/vehicle/{vehicleId}/current"} <= set(
        described
    )
    found = await rows(
        owner, "select reloptions from pg_class where relname in ('meter_state', 'vehicle_state')"
    )
    assert [row["reloptions"] for row in found] == [["fillfactor=50"]] * 2


async def test_d_clocks_need_not_agree(api: Api) -> None:
    """D left out a reading whose partner was more than 30 s away; here each counts on its own."""
    meters, vehicles = payloads(D)
    for vehicle in vehicles:
        moved = datetime.fromisoformat(vehicle["timestamp"]) - timedelta(seconds=45)
        vehicle["timestamp"] = moved.isoformat()
    await send_as(api, "D", meters, [*vehicles[:-1], {**vehicles[-1], "vehicleId": "unpaired"}])
    await map_meter(api, D)
    answer = await ask(api, f"/v1/analytics/performance/{D.vehicle_id}")
    assert answer["totalAcConsumedKwh"] == pytest.approx(10)
    assert answer["totalDcDeliveredKwh"] == pytest.approx(9 * D.ratio)
    assert answer["readingsCount"] == {"vehicle": 9, "meter": 10}


async def test_e_ingestion(api: Api, owner: Owner) -> None:
    """E: one reading or a batch at its addresses; a batch is one transaction with the latest state."""
    meters, vehicles = payloads(E, 5)
    assert await send(api, "/v1/ingestion/meter", meters[0]) == {"accepted": 1, "duplicates": 0}
    assert await send(api, "/v1/ingestion/vehicle", vehicles[0]) == {"accepted": 1, "duplicates": 0}
    told = await send(api, "/v1/ingestion/meter/batch", {"readings": meters})
    assert told == {"accepted": 4, "duplicates": 1, "rejected": []}
    spoilt = {**vehicles[2], "soc": 101}
    told = await send(
        api, "/v1/ingestion/vehicle/batch", {"readings": [*vehicles[:2], spoilt, *vehicles[3:]]}
    )
    assert (told["accepted"], told["duplicates"]) == (3, 1)
    assert [(each["index"], each["field"]) for each in told["rejected"]] == [(2, "soc")]
    problem(await api.post("/v1/ingestion/meter/batch", json={"readings": []}), 400, "empty_batch")
    for kind, stored in (("meter", 4), ("vehicle", 3)):
        # now() is the start of the transaction: the same moment for history and state.
        together = await rows(
            owner,
            f"select count(*) as n from {kind}_reading as r join {kind}_state as s "  # noqa: S608 - our own names
            f"on s.{kind}_id = r.{kind}_id and s.updated_at = r.ingested_at",
        )
        assert together == [{"n": stored}], kind


async def test_e_charging_sessions(api: Api) -> None:
    """E: a session is active until it is ended; its end is excluded, and a correction changes the answer."""
    meters, vehicles = payloads(E)
    await send_as(api, "E", meters, vehicles)
    start, middle = meters[0]["timestamp"], meters[5]["timestamp"]
    session = await map_meter(api, E, startedAt=start, endedAt=None)
    assert set(session) == {"sessionId", "vehicleId", "meterId", "startedAt", "endedAt"}
    assert session["endedAt"] is None
    for change, ac_kwh in (
        ({"endedAt": middle}, 5),
        ({"startedAt": meters[2]["timestamp"]}, 3),
        ({"endedAt": None}, 8),
    ):
        changed = await api.patch(f"/v1/sessions/{session['sessionId']}", json=change)
        assert changed.status_code == 200, changed.text
        answer = await ask(api, "/v1/analytics/performance/VH-001")
        assert answer["totalAcConsumedKwh"] == pytest.approx(ac_kwh)
        assert answer["readingsCount"] == {"vehicle": 10, "meter": ac_kwh}


@pytest.mark.parametrize(("ratio", "below"), [(0.8499, True), (0.85, False), (0.8567, False)])
async def test_e_a_ratio_under_the_threshold(api: Api, ratio: float, below: bool) -> None:
    """E planned an alarm under 0.85: the answer says so at once, and 0.85 itself is none."""
    variant = E._replace(ratio=ratio)
    await send_as(api, "E", *payloads(variant))
    await map_meter(api, variant)
    answer = await ask(api, "/v1/analytics/performance/VH-001")
    assert (answer["efficiencyRatio"], answer["belowThreshold"], answer["threshold"]) == (ratio, below, 0.85)


async def charged_earlier(api: Api, variant: Variant) -> datetime:
    """Store three whole hours at 6 kW, over for an hour at least, a reading a minute; give their start."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
    meters, vehicles = payloads(variant, 180, ac_kwh=18)
    for minute, both in enumerate(zip(meters, vehicles, strict=True)):
        for reading in both:
            reading["timestamp"] = (start + timedelta(minutes=minute)).isoformat()
            reading["soc"] = 20 + minute // 3
    await send(api, "/v1/telemetry", [*meters, *vehicles])
    ended = (start + timedelta(hours=3)).isoformat()
    await map_meter(api, variant, startedAt=start.isoformat(), endedAt=ended)
    return start


async def test_c_hourly_rollups(api: Api, owner: Owner) -> None:
    """C planned hourly rollups: they hold the sums of the readings, and the answer stays as it was."""
    start = await charged_earlier(api, C)
    address = f"/v1/analytics/performance/{C.vehicle_id}?to={rfc3339(start + timedelta(hours=5))}"
    raw = await ask(api, address)
    await owner.execute("call refresh_rollups()")
    assert await ask(api, address) == raw
    assert raw["totalAcConsumedKwh"] == pytest.approx(18)
    hours = [start + timedelta(hours=number) for number in range(3)]
    for kind, kwh in (("meter", "kwh_ac"), ("vehicle", "kwh_dc")):
        found = await rows(
            owner,
            f"select hour, readings, {kwh} as kwh from {kind}_hourly_stored order by hour",  # noqa: S608
        )
        each = 6 if kind == "meter" else 6 * C.ratio
        assert [(row["hour"], row["readings"]) for row in found] == [(hour, 60) for hour in hours]
        assert [row["kwh"] for row in found] == [pytest.approx(each)] * 3
    span = f"from={rfc3339(start)}&to={rfc3339(hours[2])}"
    told = (await ask(api, f"/v1/analytics/vehicles/{C.vehicle_id}/hourly?{span}"))["hours"]
    assert [(hour["start"], hour["efficiencyRatio"]) for hour in told] == [
        (rfc3339(hour), C.ratio) for hour in hours[:2]
    ]


async def test_c_and_e_alarms(api: Api, owner: Owner) -> None:
    """C and E planned alarms under 0.85: the failing pair has one, a good one has none."""
    faulty = E._replace(ratio=0.7)
    await charged_earlier(api, faulty)
    await charged_earlier(api, C)
    alerts: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while not alerts:
            # It comes back at once while the service's own refresh, which has seen less, is under way.
            await owner.execute("call refresh_rollups()")
            alerts = (await ask(api, "/v1/alerts"))["alerts"]
    assert [(alert["vehicleId"], alert["meterId"]) for alert in alerts] == [("VH-001", "METER-001")]
    assert alerts[0]["kind"] == "low_efficiency"

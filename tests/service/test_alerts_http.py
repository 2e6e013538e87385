"""Alerts over HTTP: what is told of them, filters, pages and mistakes; and the gauges at /metrics."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from service.settings import Settings
from tests.support.alert_data import close_alert, put_alert
from tests.support.alert_receivers import PATIENCE_S
from tests.support.strategies import NOW, Api, Owner, problem, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Give settings of a service that leaves alerts as the tests write them."""
    return msgspec.structs.replace(settings, alerts=False)


async def listed(api: Api, query: str = "") -> list[int]:
    """Give the ids of a list of alerts."""
    response = await api.get(f"/v1/alerts?{query}")
    assert response.status_code == 200, response.text
    return [each["alertId"] for each in response.json()["alerts"]]


async def test_what_is_told(api: Api, owner: Owner) -> None:
    """An alert is told with its window, energies, ratios, threshold and coverage, open and closed."""
    alert_id = await put_alert(owner, opened_at=NOW, ratio=0.7123456789)
    body: dict[str, Any] = (await api.get("/v1/alerts")).json()
    told = {
        "alertId": alert_id,
        "vehicleId": "v-1",
        "meterId": "m-1",
        "kind": "low_efficiency",
        "state": "open",
        "openedAt": "2026-01-31T12:00:00Z",
        "closedAt": None,
        "closeReason": None,
        "windowStart": "2026-01-30T12:00:00Z",
        "windowEnd": "2026-01-31T12:00:00Z",
        "totalAcConsumedKwh": 10,
        "totalDcDeliveredKwh": 7.123457,
        "ratioAtOpening": 0.712346,
        "ratioWorst": 0.712346,
        "ratioLatest": 0.712346,
        "threshold": 0.85,
        "coverage": {"meter": 1, "vehicle": 0.987654},
        "evaluatedUntil": "2026-01-31T12:00:00Z",
    }
    assert body == {"alerts": [told], "next": None}
    await close_alert(owner, alert_id, "stale", NOW + timedelta(hours=1))
    closed = {"state": "closed", "closedAt": "2026-01-31T13:00:00Z", "closeReason": "stale"}
    assert (await api.get("/v1/alerts")).json() == {"alerts": [told | closed], "next": None}


async def test_filters(api: Api, owner: Owner) -> None:
    """By state, vehicle, meter, kind and time, alone and together; newest first."""
    a = await put_alert(owner, "v-1", "m-1", opened_at=NOW)
    await close_alert(owner, a, at=NOW + timedelta(hours=2))
    b = await put_alert(owner, "v-1", "m-2", opened_at=NOW + timedelta(hours=1), kind="data_fault", ratio=1.2)
    c = await put_alert(owner, "v-2", "m-2", opened_at=NOW + timedelta(hours=3))
    for query, expected in {
        "": [c, b, a],
        "state=all": [c, b, a],
        "state=open": [c, b],
        "state=closed": [a],
        "vehicleId=v-1": [b, a],
        "meterId=m-2": [c, b],
        "vehicleId=v-1&meterId=m-2&state=open": [b],
        "vehicleId=v-9": [],
        "kind=data_fault": [b],
        "kind=low_efficiency&state=closed": [a],
        # Open at some time in a span: start included, end excluded.
        "to=2026-01-31T13:00:00Z": [a],
        "from=2026-01-31T14:00:00Z": [c, b],
        "from=2026-01-31T13:59:59Z&to=2026-01-31T15:00:00Z": [b, a],
        "from=2030-01-01T00:00:00Z": [c, b],
        "to=2026-01-31T12:00:00Z": [],
    }.items():
        assert await listed(api, query) == expected, query


async def test_pages(api: Api, owner: Owner) -> None:
    """Walking page by page gives every alert once, and an alert that opens meanwhile disturbs no page."""
    everything = [await put_alert(owner, f"v-{number}") for number in range(7)][::-1]
    for size in (1, 3, 7, 100):
        walked, after = [], f"&after={everything[0] + 1}"
        for number in range(9):
            page = (await api.get(f"/v1/alerts?limit={size}{after}")).json()
            walked += [each["alertId"] for each in page["alerts"]]
            await put_alert(owner, f"w-{size}", f"m-{number}")
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert (walked, page["next"]) == (everything, None)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=opened", "state"),
        ("state=", "state"),
        ("kind=low", "kind"),
        ("vehicleId=a%20b", "vehicleId"),
        ("meterId=", "meterId"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("after=x", "after"),
        ("after=1.5", "after"),
        ("after=-1", "after"),
        ("after=1e300", "after"),
        ("from=yesterday", "from"),
        ("to=2026-01-31T12:00:00", "to"),
        ("from=2026-02-01T00:00:00Z&to=2026-01-31T00:00:00Z", "from"),
    ],
)
async def test_mistakes(api: Api, query: str, field: str) -> None:
    """A parameter that is not valid is a 400 that names it."""
    assert problem(await api.get(f"/v1/alerts?{query}"), 400, "bad_parameter")["field"] == field


async def test_gauges(settings: Settings, owner: Owner) -> None:
    """/metrics tells how many alerts are open by kind, and how many events wait for the webhook."""
    await put_alert(owner, "v-1")
    await put_alert(owner, "v-2")
    await put_alert(owner, "v-3", kind="data_fault", ratio=1.3)
    await close_alert(owner, await put_alert(owner, "v-4"))
    await owner.execute("update alert_event set webhook_state = 'failed' where vehicle_id = 'v-1'")
    wanted = {
        'fleetwatt_alerts_open{kind="low_efficiency"}': 2.0,
        'fleetwatt_alerts_open{kind="data_fault"}': 1.0,
        'fleetwatt_alert_events{channel="webhook",state="failed"}': 1.0,
        'fleetwatt_alert_events{channel="webhook",state="pending"}': 4.0,
    }
    found: dict[str, float] = {}
    # Nobody listens there, and the first try of each event is far from the last.
    async with serving(
        settings, alert_webhook_url="http://127.0.0.1:1/", alert_webhook_pause_s=3600
    ) as client:
        for _ in range(PATIENCE_S * 10):
            text = (await client.get("/metrics")).text
            found = {
                name: float(value)
                for name, value in re.findall(r"^(fleetwatt_alert\S+) (\S+)$", text, re.MULTILINE)
            }
            if wanted.items() <= found.items():
                break
            await asyncio.sleep(0.1)
    assert wanted.items() <= found.items(), found

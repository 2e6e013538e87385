"""Alerts posted to a webhook: each event, in order, until it is answered; whatever the webhook does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from service.alerts.delivery import Delivery
from service.errors import SettingsError
from service.settings import Settings, describe
from tests.support import servers
from tests.support.alert_data import close_alert, put_alert
from tests.support.alert_receivers import OK, Receiver, deliveries, eventually, receiving, until
from tests.support.servers import Postgres
from tests.support.strategies import Owner, rows

pytestmark = pytest.mark.anyio

FAILURE = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"
ELSEWHERE = b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
PENDING, DELIVERED, FAILED = (f"webhook_state = '{state}'" for state in ("pending", "delivered", "failed"))


def with_webhook(settings: Settings, url: str, **changes: Any) -> Settings:
    """Give settings with a webhook, and with pauses of a test."""
    quick: dict[str, Any] = {
        "alert_poll_s": 0.1,
        "alert_webhook_pause_s": 0.02,
        "alert_webhook_timeout_s": 5.0,
    }
    return msgspec.structs.replace(settings, alert_webhook_url=url, **quick | changes)


def said(receiver: Receiver) -> list[tuple[str, str]]:
    """Give (type, vehicle) of all requests."""
    return [(request.body["type"], request.body["alert"]["vehicleId"]) for request in receiver.requests]


async def test_what_is_posted(
    settings: Settings, owner: Owner, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Opening and closing are posted as JSON with the alert as it was then, and an id in body and header."""
    async with receiving() as receiver, Delivery(with_webhook(settings, receiver.url)):
        alert_id = await put_alert(owner)
        await until(owner, DELIVERED, 1)
        await close_alert(owner, alert_id)
        await until(owner, DELIVERED, 2)
    # The address holds a secret, which no line of a log shows.
    assert "s3cret" not in caplog.text + str(capsys.readouterr())
    opened, closed = receiver.requests
    assert opened.line == "POST /hook/s3cret?token=s3cret HTTP/1.1"
    assert opened.headers["content-type"] == "application/json"
    assert opened.headers["user-agent"].startswith("fleetwatt/")
    assert [request.body["type"] for request in (opened, closed)] == ["alert.opened", "alert.closed"]
    assert [request.body["alert"]["state"] for request in (opened, closed)] == ["open", "closed"]
    assert closed.body["alert"]["closeReason"] == "recovered"
    assert opened.body["alert"] | {"state": 0, "closedAt": 0, "closeReason": 0} == closed.body["alert"] | {
        "state": 0,
        "closedAt": 0,
        "closeReason": 0,
    }
    assert opened.body["alert"]["openedAt"].endswith("Z")
    ids = [UUID(request.body["eventId"]) for request in (opened, closed)]
    assert [UUID(request.headers["webhook-id"]) for request in (opened, closed)] == ids
    assert len(set(ids)) == 2


async def test_tries_again(settings: Settings, owner: Owner) -> None:
    """After an error, a redirect and a closed connection the same event comes again, and then no more."""
    script = (FAILURE, ELSEWHERE, b"", OK)
    async with receiving(*script) as receiver, Delivery(with_webhook(settings, receiver.url)):
        await put_alert(owner)
        await until(owner, DELIVERED, 1)
    assert len(receiver.requests) == 4
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert len({str(request.body) for request in receiver.requests}) == 1
    [event] = await rows(owner, "select * from alert_event")
    assert (event["webhook_tries"], event["webhook_error"]) == (4, None)


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_too_slow(settings: Settings, owner: Owner, answer: bytes | None) -> None:
    """An answer that does not come, or not whole, counts as none."""
    async with (
        receiving(answer) as receiver,
        Delivery(with_webhook(settings, receiver.url, alert_webhook_timeout_s=0.3)),
    ):
        await put_alert(owner)
        await until(owner, DELIVERED, 1)
    assert len(receiver.requests) == 2


async def test_in_order_for_each_vehicle(settings: Settings, owner: Owner) -> None:
    """While one event of a vehicle fails, its later ones wait; those of other vehicles do not."""
    async with receiving(*[FAILURE] * 4) as receiver, Delivery(with_webhook(settings, receiver.url)):
        for _ in range(3):
            await close_alert(owner, await put_alert(owner, "v-1"))
            await close_alert(owner, await put_alert(owner, "v-2"))
        await until(owner, DELIVERED, 12)
    assert len(receiver.requests) == 16
    stored = await rows(owner, "select vehicle_id, event_key from alert_event order by event_id")
    for vehicle_id in ("v-1", "v-2"):
        posted = [
            request.body["eventId"]
            for request in receiver.requests
            if request.body["alert"]["vehicleId"] == vehicle_id
        ]
        order = [str(row["event_key"]) for row in stored if row["vehicle_id"] == vehicle_id]
        # A repeat follows its first try, before anything else of the vehicle.
        assert posted == sorted(posted, key=order.index)
        assert set(posted) == set(order)


async def test_given_up(settings: Settings, owner: Owner) -> None:
    """After its last try an event is 'failed', counted and kept; the vehicle's next event goes on."""
    before = deliveries("webhook", "given_up")
    async with (
        receiving(*[FAILURE] * 3) as receiver,
        Delivery(with_webhook(settings, receiver.url, alert_webhook_tries=3)),
    ):
        await close_alert(owner, await put_alert(owner))
        await until(owner, FAILED, 1)
        await until(owner, DELIVERED, 1)
        assert [kind for kind, _ in said(receiver)] == ["alert.opened"] * 3 + ["alert.closed"]
        assert deliveries("webhook", "given_up") == before + 1
        [event] = await rows(owner, "select * from alert_event where webhook_state = 'failed'")
        assert (event["webhook_tries"], event["webhook_error"]) == (3, "answered 500")
        # An operator may have it tried anew.
        await owner.execute(
            "update alert_event set webhook_state = 'pending', webhook_tries = 0 where event_id = 1"
        )
        await until(owner, DELIVERED, 2)


async def test_nobody_listens(settings: Settings, owner: Owner) -> None:
    """A webhook that is down is tried with growing pauses until it is up."""
    port = servers.free_port()
    changed = with_webhook(settings, f"http://127.0.0.1:{port}/", alert_webhook_tries=1000)
    async with Delivery(changed):
        await put_alert(owner)
        await until(owner, "webhook_tries >= 3", 1)
        [event] = await rows(owner, "select * from alert_event")
        assert event["webhook_state"] == "pending"
        assert event["webhook_error"].startswith("ConnectError")
        async with receiving(port=port) as receiver:
            await until(owner, DELIVERED, 1)
    assert said(receiver) == [("alert.opened", "v-1")]


async def test_pauses_grow_and_outlive_the_process(settings: Settings, owner: Owner) -> None:
    """Tries and the time of the next one are in the table: another process goes on where one ended."""
    changed = with_webhook(settings, "http://127.0.0.1:1/", alert_webhook_pause_s=200, alert_webhook_tries=3)
    pauses = []
    for tries in (1, 2, 3):
        async with Delivery(changed):
            if tries == 1:
                await put_alert(owner)
            await until(owner, f"webhook_tries = {tries}", 1)
        [event] = await rows(owner, "select *, webhook_next_at - now() as pause from alert_event")
        pauses.append(event["pause"].total_seconds())
        await owner.execute("update alert_event set webhook_next_at = now()")
    assert event["webhook_state"] == "failed"
    # Doubled each time, with a jitter of down to a half, less what the test took.
    assert [40 < pause <= 200 * 2**place for place, pause in enumerate(pauses)] == [True] * 3
    assert pauses[2] > 300


async def test_too_old(settings: Settings, owner: Owner) -> None:
    """Events from long before the webhook was set are given up instead of posted."""
    await put_alert(owner, "v-old")
    await owner.execute("update alert_event set occurred_at = now() - interval '49 hours'")
    async with (
        receiving() as receiver,
        Delivery(with_webhook(settings, receiver.url, alert_webhook_max_age_hours=48)),
    ):
        await put_alert(owner, "v-new")
        await until(owner, DELIVERED, 1)
        await until(owner, "webhook_state = 'failed' and webhook_error = 'too old'", 1)
    assert said(receiver) == [("alert.opened", "v-new")]


async def test_many_events(settings: Settings, owner: Owner) -> None:
    """A whole fleet's events are posted, each once."""
    for number in range(250):
        await put_alert(owner, f"v-{number}")
    async with receiving() as receiver, Delivery(with_webhook(settings, receiver.url)):
        await until(owner, DELIVERED, 250)
    assert len(receiver.requests) == 250
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 250


async def test_the_connection_is_lost(
    settings: Settings, owner: Owner, postgres: Postgres, database: str
) -> None:
    """When the database ends its connection, delivery takes the lock again on a new one and goes on."""
    async with receiving() as receiver, Delivery(with_webhook(settings, receiver.url)):
        await put_alert(owner, "v-1")
        await until(owner, DELIVERED, 1)
        with postgres.admin(database) as admin:
            ended = admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = 'fleetwatt alerts' and datname = current_database()"
            ).fetchall()
        assert ended == [(True,)]
        await put_alert(owner, "v-2")
        await until(owner, DELIVERED, 2)
    assert said(receiver) == [("alert.opened", "v-1"), ("alert.opened", "v-2")]


async def test_one_process_at_a_time(settings: Settings, owner: Owner) -> None:
    """Of several processes one delivers; when it leaves another takes over, and nothing comes twice."""
    async with receiving() as receiver:
        changed = with_webhook(settings, receiver.url)
        async with Delivery(changed):
            async with Delivery(changed), Delivery(changed):
                for number in range(20):
                    await put_alert(owner, f"v-{number}")
                await until(owner, DELIVERED, 20)
            await put_alert(owner, "v-20")
            await until(owner, DELIVERED, 21)
        async with Delivery(changed):
            await put_alert(owner, "v-21")
            await until(owner, DELIVERED, 22)
    assert len(receiver.requests) == 22


@pytest.mark.parametrize("url", ["host/path", "ftp://host/", "http://", "//host"])
def test_bad_address(url: str) -> None:
    """An address that is none is a mistake in a setting, told at the start."""
    with pytest.raises(SettingsError, match="FLEETWATT_ALERT_WEBHOOK_URL"):
        Delivery(Settings(database_url="postgresql://127.0.0.1:1/none", alert_webhook_url=url))


def test_the_address_stays_hidden() -> None:
    """Path and query of the address are often a secret: the list of settings shows neither."""
    shown = describe(Settings(alert_webhook_url="https://user:s3cret@host/s3cret?token=s3cret"))
    assert "s3cret" not in str(shown)
    assert "https://user:***@host/***" in str(shown)


async def test_without_a_database() -> None:
    """A process whose database is away starts and ends as ever."""
    settings = Settings(database_url="postgresql://127.0.0.1:1/none", alert_webhook_url="http://127.0.0.1:1/")
    began = datetime.now(UTC)
    async with Delivery(settings):
        await eventually(lambda: datetime.now(UTC) > began + timedelta(seconds=0.5))

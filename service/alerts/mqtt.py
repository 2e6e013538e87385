"""Alerts over MQTT: the open alerts of a vehicle, retained on alerts/vehicle/{vehicleId}.

The topic tells the state, not its history: events that came while the broker was away end in one message.
A vehicle without open alerts has an empty list, which the broker forgets after a week; until then whoever was
away for a while learns that all is well.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from gmqtt.mqtt.handler import MQTTConnectError

from service import log, metrics
from service.alerts.alert import vehicle_body
from service.alerts.channel import Books
from service.alerts.publisher import Message, publish_retained
from service.broker import BrokerAddress, explain_tls, words
from service.errors import SettingsError
from service.settings import Settings
from service.sql import query

_BATCH: Final = 500
_PAUSE_S: Final = 1.0
_PAUSE_MAX_S: Final = 60.0
# A broker that was killed may have lost what it acknowledged last: what matters is said again, at the start
# of a process and every hour.
_AGAIN_AFTER: Final = timedelta(hours=1)
_MATTERS_FOR: Final = timedelta(days=1)
_ALL_IS_WELL_FOR_S: Final = 7 * 86_400


class Announcer:
    """Publishes the state of each vehicle whose alerts changed."""

    name = "mqtt"
    number = 1

    def __init__(self, settings: Settings) -> None:
        self._address = BrokerAddress.of(settings)
        self._client_id = f"{settings.mqtt_client_id}-alerts"
        self._said_all = datetime.min.replace(tzinfo=UTC)
        self._pause_s = _PAUSE_S
        self._log = log.get("alerts").bind(channel=self.name)

    async def deliver(self, books: Books) -> float:
        """Publish what is due; what the broker did not acknowledge stays due, after a growing pause."""
        rows = await books.ask(query("vehicles_to_announce"), {"page_size": _BATCH})
        due = {row["vehicle_id"]: row["event_ids"] for row in rows}
        now = datetime.now(UTC)
        again = now - self._said_all >= _AGAIN_AFTER
        if again:
            lately = await books.ask(query("vehicles_announced_lately"), {"since": now - _MATTERS_FOR})
            due = {row["vehicle_id"]: [] for row in lately} | due
        if due and not await self._announce(books, due):
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))
            self._pause_s = min(self._pause_s * 2, _PAUSE_MAX_S)
            return 0
        self._pause_s = _PAUSE_S
        if again:
            self._said_all = now
        return 0 if len(rows) == _BATCH else _AGAIN_AFTER.total_seconds()

    async def _announce(self, books: Books, due: dict[str, list[int]]) -> bool:
        """Publish the present state of vehicles and note it; tell whether the broker took all of it."""
        messages = await self._messages(books, list(due))
        try:
            refused = await publish_retained(self._address, self._client_id, list(messages.values()))
        except (OSError, MQTTConnectError, SettingsError) as error:
            events = sum(map(len, due.values()))
            self._log.warning(
                "broker_away",
                broker=str(self._address),
                error=explain_tls(self._address, error) or words(error),
                events=events,
            )
            metrics.ALERT_DELIVERIES.labels(self.name, "failed").inc(events)
            return False
        taken = [
            event_id
            for vehicle_id, event_ids in due.items()
            if messages[vehicle_id].topic not in refused
            for event_id in event_ids
        ]
        await books.ask(query("note_announced"), {"event_ids": taken})
        metrics.ALERT_DELIVERIES.labels(self.name, "delivered").inc(len(taken))
        if refused:
            topic, reason = next(iter(refused.items()))
            self._log.error("broker_refused", topics=len(refused), topic=topic, reason=reason)
            metrics.ALERT_DELIVERIES.labels(self.name, "failed").inc(len(refused))
        return not refused

    async def _messages(self, books: Books, vehicle_ids: list[str]) -> dict[str, Message]:
        open_alerts: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in await books.ask(query("open_alerts_of"), {"vehicle_ids": vehicle_ids}):
            open_alerts[row["vehicle_id"]].append(row)
        return {
            vehicle_id: Message(
                # Ids that the engine let in stay as they are; one that came past it must not break the topic.
                topic=f"alerts/vehicle/{quote(vehicle_id, safe=':')}",
                payload=vehicle_body(vehicle_id, open_alerts[vehicle_id]),
                expiry_s=None if open_alerts[vehicle_id] else _ALL_IS_WELL_FOR_S,
            )
            for vehicle_id in vehicle_ids
        }

"""Alerts as a webhook: each event is posted as JSON, those of a vehicle in order, until an answer is 2xx.

Delivered at least once: a repeat has the same event id, in the body and in the header Webhook-Id.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from service import __version__, log, metrics
from service.alerts.alert import event_body
from service.alerts.channel import Books
from service.errors import SettingsError
from service.settings import Settings
from service.sql import query

_BATCH: Final = 100
_AT_ONCE: Final = 8
_PAUSE_MAX_S: Final = 3600.0
_ERROR_MAX: Final = 200


class Webhook:
    """Posts each event; tries again with growing pauses, and gives up after a number of tries."""

    name = "webhook"
    number = 2

    def __init__(self, settings: Settings) -> None:
        parts = urlsplit(settings.alert_webhook_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SettingsError("FLEETWATT_ALERT_WEBHOOK_URL must look like https://host[:port]/path")
        # httpx logs whole addresses, and the framework lets such lines through; an address is often a secret.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._settings = settings
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._log = log.get("alerts").bind(channel=self.name, host=parts.hostname)

    async def deliver(self, books: Books) -> float:
        """Post what is due; look again at once while there is more."""
        await self._give_up_old(books)
        due = await books.ask(query("events_to_post"), {"page_size": _BATCH})
        if not due:
            return self._settings.alert_poll_s
        async with httpx.AsyncClient(
            timeout=self._settings.alert_webhook_timeout_s,
            follow_redirects=False,
            headers={"User-Agent": f"fleetwatt/{__version__}", "Content-Type": "application/json"},
        ) as client:
            # All are waited for before an error counts: none of them must go on without the lock.
            results = await asyncio.gather(
                *(self._post(client, books, event) for event in due), return_exceptions=True
            )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return 0

    async def _post(self, client: httpx.AsyncClient, books: Books, event: dict[str, Any]) -> None:
        async with self._room:
            problem = await self._try(client, event)
        tries = event["webhook_tries"] + 1
        pause_s = self._pause_s(tries)
        said = {"event_id": event["event_id"], "tries": tries, "error": problem}
        if problem is None:
            state = "delivered"
            metrics.ALERT_DELIVERIES.labels(self.name, "delivered").inc()
        elif tries < self._settings.alert_webhook_tries:
            state = "pending"
            metrics.ALERT_DELIVERIES.labels(self.name, "failed").inc()
            self._log.warning("webhook_failed", **said, pause_s=round(pause_s, 1))
        else:
            state = "failed"
            metrics.ALERT_DELIVERIES.labels(self.name, "given_up").inc()
            self._log.error("webhook_given_up", **said)
        await books.ask(
            query("note_posted"),
            {
                "event_id": event["event_id"],
                "webhook_state": state,
                "pause_s": pause_s,
                "webhook_error": problem,
            },
        )

    def _pause_s(self, tries: int) -> float:
        """Give the pause after some tries: it doubles each time, up to an hour, with jitter."""
        longest = self._settings.alert_webhook_pause_s * 2.0 ** min(tries - 1, 30)
        return min(longest, _PAUSE_MAX_S) * random.uniform(0.5, 1.0)

    async def _try(self, client: httpx.AsyncClient, event: dict[str, Any]) -> str | None:
        """Post an event once; give what went wrong, None for an answer of 2xx."""
        try:
            # The client's own timeout is one between bytes: a server that trickles would never run into it.
            async with (
                asyncio.timeout(self._settings.alert_webhook_timeout_s),
                client.stream(
                    "POST",
                    self._settings.alert_webhook_url,
                    content=event_body(event),
                    headers={"Webhook-Id": str(event["event_key"])},
                ) as response,
            ):
                return None if response.is_success else f"answered {response.status_code}"
        except TimeoutError:
            return "no answer in time"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return f"{type(error).__name__}: {error}"[:_ERROR_MAX]

    async def _give_up_old(self, books: Books) -> None:
        old = await books.ask(
            query("give_up_old_events"), {"max_age_hours": self._settings.alert_webhook_max_age_hours}
        )
        if old:
            metrics.ALERT_DELIVERIES.labels(self.name, "given_up").inc(len(old))
            self._log.error("webhook_given_up", events=len(old), error="too old")

"""Runs beside the rest of a process: the channels that are set, and the gauges."""

from __future__ import annotations

import asyncio
import math
from typing import Final, Self

import psycopg

from service import lifecycle, metrics
from service.alerts.channel import Channel, keep_delivering
from service.alerts.mqtt import Announcer
from service.alerts.webhook import Webhook
from service.db import ReadPool, fetch_all
from service.settings import Settings
from service.sql import query

_GAUGES_EVERY_S: Final = 15.0
_KINDS: Final = ("low_efficiency", "data_fault")


class Delivery:
    """Delivers alert events in the background, as an async context manager.

    Without a broker and a webhook it does nothing; of several processes one delivers through each channel.
    With a pool it also keeps the gauges. Leaving it in the middle is safe: what was not noted is delivered
    again. Raises SettingsError for an address that cannot be read.
    """

    def __init__(self, settings: Settings, pool: ReadPool | None = None) -> None:
        self._settings = settings
        self._pool = pool
        self._channels: list[Channel] = []
        if settings.mqtt_url:
            self._channels.append(Announcer(settings))
        if settings.alert_webhook_url:
            self._channels.append(Webhook(settings))

    async def __aenter__(self) -> Self:
        jobs = [keep_delivering(channel, self._settings) for channel in self._channels]
        if self._pool is not None:
            jobs.append(_keep_gauges(self._pool, {channel.name for channel in self._channels}))
        self._running = lifecycle.alongside(*jobs)
        await self._running.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.__aexit__(None, None, None)


async def _keep_gauges(pool: ReadPool, channels: set[str]) -> None:
    """Count open alerts and waiting events from time to time; nothing is known while the database is away."""
    while True:
        try:
            await _set_gauges(pool, channels)
        except (psycopg.Error, OSError):
            for kind in _KINDS:
                metrics.ALERTS_OPEN.labels(kind).set(math.nan)
        await asyncio.sleep(_GAUGES_EVERY_S)


async def _set_gauges(pool: ReadPool, channels: set[str]) -> None:
    counted = {row["kind"]: row["alerts"] for row in await fetch_all(pool, query("count_open_alerts"))}
    for kind in _KINDS:
        metrics.ALERTS_OPEN.labels(kind).set(counted.get(kind, 0))
    [waiting] = await fetch_all(pool, query("count_undelivered_events"))
    for channel in channels:
        for state in ("pending", "failed"):
            count = waiting.get(f"{channel}_{state}")
            if count is not None:
                metrics.ALERT_EVENTS.labels(channel, state).set(count)

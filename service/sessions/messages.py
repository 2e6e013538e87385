"""Sessions over MQTT, sessions/{meterId}: a start, an end, or a whole session, in whatever order they come.

Messages of one meter are handled one after another, in the order of arrival. That is not enough: several
workers share the load, and one that was away has old messages. So the database sorts it out (see
sql/repeatable/055_session_messages.sql): what does not fit yet waits there, and the caller may acknowledge
it, because it is committed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, LiteralString, NoReturn

import msgspec
import psycopg
from prometheus_client import Counter

from service import lifecycle, log
from service.db import ReadPool, fetch_all
from service.errors import blames_data, is_transient
from service.readings import TimeRule
from service.sessions.decode import Unusable, decode, meter_of
from service.sessions.expiry import expire_messages
from service.settings import Settings
from service.sql import query

# The first level of the topics; the second is the meter.
TOPIC: Final = "sessions"
_TRIES_OF_UNKNOWN: Final = 5
# How often waiting messages are looked through, so that they do not depend on others to come.
_EXPIRY_PAUSE_S: Final = 30.0

_MESSAGES: Final = Counter(
    "fleetwatt_session_messages", "MQTT messages about sessions by what became of them", ["result"]
)


def values_of(settings: Settings, topic: str, payload: bytes) -> dict[str, Any]:
    """Read a message and give the values of `take_session_message`. Raises Unusable."""
    message = decode(topic, payload, TimeRule.of(settings))
    return msgspec.structs.asdict(message) | _kept(settings, topic, payload)


def refused_by_database(error: psycopg.Error) -> Unusable:
    """Say of a message that its data are to blame, though it can be read."""
    message = f"the database refused the message (SQLSTATE {error.sqlstate or 'unknown'})"
    return Unusable("database_refused", message)


class SessionMessages:
    """Takes messages about sessions into the database; what `take` returned from is committed."""

    def __init__(self, settings: Settings, pool: ReadPool) -> None:
        self._settings = settings
        self._pool = pool
        self._queues: dict[str, tuple[asyncio.Lock, int]] = {}
        # More at once would only wait for a connection, and give up waiting.
        self._room = asyncio.Semaphore(settings.read_pool_max)
        self._log = log.get("sessions")

    async def take(self, topic: str, payload: bytes) -> None:
        """Handle one message; as long as the database is away it is tried again.

        Raises an exception only for a defect: the message must then stay with the broker.
        """
        async with self._turn(topic), self._room:
            statement, values = self._decode(topic, payload)
            try:
                became = await self._commit(statement, values)
            except psycopg.Error as error:
                if not blames_data(error):
                    raise
                became = await self._commit(*self._refusal(topic, payload, refused_by_database(error)))
            _MESSAGES.labels(became).inc()

    async def run(self) -> NoReturn:
        """Look through the waiting messages now and then; what goes wrong is tried again next time."""
        await lifecycle.repeat(self.expire, _EXPIRY_PAUSE_S, self._log, "expiry_failed")

    async def expire(self) -> int:
        """Use waiting messages that fit by now; give up those that have waited too long, and say how many."""
        given_up = await expire_messages(self._settings)
        if given_up:
            _MESSAGES.labels("expired").inc(given_up)
            self._log.warning("messages_given_up", count=given_up)
        return given_up

    def _decode(self, topic: str, payload: bytes) -> tuple[LiteralString, dict[str, Any]]:
        """Give the statement that a message asks for, or the one of a dead letter, and its values."""
        try:
            return query("take_session_message"), values_of(self._settings, topic, payload)
        except Unusable as unusable:
            return self._refusal(topic, payload, unusable)

    def _refusal(
        self, topic: str, payload: bytes, unusable: Unusable
    ) -> tuple[LiteralString, dict[str, Any]]:
        values = {
            "meter_id": meter_of(topic),
            "refusal_code": unusable.code,
            "refusal_field": unusable.field,
            "refusal": unusable.message.replace("\0", ""),
        }
        return query("refuse_session_payload"), values | _kept(self._settings, topic, payload)

    async def _commit(self, statement: LiteralString, values: dict[str, Any]) -> str:
        """Run a statement until it commits or is refused for good; pauses grow, with jitter."""
        pause_s = 0.05
        tries = 0
        while True:
            tries += 1
            try:
                [row] = await fetch_all(self._pool, statement, values)
            except (psycopg.Error, OSError) as error:
                if blames_data(error) or (not _passes(error) and tries >= _TRIES_OF_UNKNOWN):
                    raise
                self._log.warning(
                    "database_away", error=type(error).__name__, detail=str(error).splitlines()[:1]
                )
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, self._settings.retry_max_s)
            else:
                return str(row["became"])

    @asynccontextmanager
    async def _turn(self, topic: str) -> AsyncIterator[None]:
        """Wait until the earlier messages of a topic are done with: a lock serves in the order of asking."""
        lock, users = self._queues.get(topic, (asyncio.Lock(), 0))
        self._queues[topic] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._queues.pop(topic)
            if users > 1:
                self._queues[topic] = lock, users - 1


def _kept(settings: Settings, topic: str, payload: bytes) -> dict[str, Any]:
    """Give what is kept of a message that cannot be used, now or later."""
    return {
        "message_origin": f"mqtt:{topic}"[:1000].replace("\0", ""),
        "payload": payload[: settings.dead_letter_max_bytes],
        "payload_size": len(payload),
    }


def _passes(error: Exception) -> bool:
    """Tell whether it is worth waiting; a missing function comes with the migration that is still to run."""
    return is_transient(error) or isinstance(error, psycopg.errors.UndefinedFunction)

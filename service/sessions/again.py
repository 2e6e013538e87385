"""A refused message about a session is tried again, without a new dead letter if it is refused once more."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import psycopg

from service.db import ReadPool
from service.errors import blames_data
from service.readings import TimeRule
from service.sessions.decode import Unusable, decode
from service.settings import Settings
from service.sql import query

# As for a query: a frozen server must not hold a request for ever.
_TIMEOUT_S: Final = 40.0


class RefusedAgainError(Exception):
    """The message is still refused: a code, and the reason in words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def check(settings: Settings, topic: str, payload: bytes) -> None:
    """Read a message and do nothing with it. Raises RefusedAgainError if it is none by today's rules."""
    try:
        decode(topic, payload, TimeRule.of(settings))
    except Unusable as unusable:
        raise RefusedAgainError(unusable.code, unusable.message) from None


async def take_again(pool: ReadPool, settings: Settings, topic: str, payload: bytes) -> str:
    """Take a message as if it had just come; give what became of it: stored, duplicate or waits.

    Raises RefusedAgainError, and then nothing has changed; psycopg.Error when the database is away.
    """
    check(settings, topic, payload)
    values = msgspec.structs.asdict(decode(topic, payload, TimeRule.of(settings))) | {
        "message_origin": f"mqtt:{topic}",
        "payload": payload,
        "payload_size": len(payload),
    }
    why = None
    try:
        async with (
            asyncio.timeout(_TIMEOUT_S),
            pool.connection() as connection,
            connection.transaction() as transaction,
        ):
            [row] = await (await connection.execute(query("take_session_message"), values)).fetchall()
            if row["became"] == "refused":
                # With its new dead letter undone, it is as if nobody had asked.
                [why] = await (await connection.execute(query("latest_own_dead_letter"))).fetchall()
                raise psycopg.Rollback(transaction)
    except psycopg.Error as error:
        if not blames_data(error):
            raise
        message = f"the database refused the message (SQLSTATE {error.sqlstate or 'unknown'})"
        raise RefusedAgainError("database_refused", message) from None
    if why is not None:
        raise RefusedAgainError(why["code"], why["message"])
    return str(row["became"])

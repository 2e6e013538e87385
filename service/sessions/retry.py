"""A refused message about a session is tried again, without a new dead letter if it is refused once more."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import psycopg

from service.db import ReadPool
from service.errors import blames_data
from service.sessions.decode import Unusable
from service.sessions.messages import refused_by_database
from service.sql import query

# As for a query: a frozen server must not hold a request for ever.
_TIMEOUT_S: Final = 40.0


async def retry_message(pool: ReadPool, values: dict[str, Any]) -> str:
    """Take a message (its `values_of`) as if it had just come; give what became of it.

    That is stored, duplicate or waits. Raises Unusable if it is refused, and then nothing has changed;
    psycopg.Error or TimeoutError when the database is away.
    """
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
        raise refused_by_database(error) from None
    if why is not None:
        raise Unusable(why["code"], why["message"])
    return str(row["became"])

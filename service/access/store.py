"""What the service reads of the keys in the database, on a connection of its own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

import msgspec
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from service import db
from service.errors import DatabaseUnavailableError
from service.settings import Settings
from service.sql import query
from service.web.principal import Principal

_LOOK_UP_S: Final = 2.0


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is stored."""

    key_id: str
    secret_sha256: bytes
    scopes: frozenset[str]
    meter_ids: frozenset[str] | None
    vehicle_ids: frozenset[str] | None
    expires_at: datetime | None
    revoked_at: datetime | None

    @property
    def expired(self) -> bool:
        """Tell whether its time is over."""
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)

    @property
    def principal(self) -> Principal:
        """Give who holds it."""
        return Principal(
            key_id=self.key_id, scopes=self.scopes, meter_ids=self.meter_ids, vehicle_ids=self.vehicle_ids
        )


class KeyStore:
    """Looks keys up, one query at a time, each in 2 s at most.

    Not through the pool of the read routes: slow queries there, and its long pauses between two tries to
    connect, would keep readings from being taken.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.database_url
        self._link = _Link(self._url)

    async def keys_on(self) -> bool:
        """Tell whether there ever was a key."""
        [row] = await self._fetch(query("any_api_key"), {})
        return bool(row["keys_on"])

    async def find(self, key_id: str) -> StoredKey | None:
        """Give a key by its public part; None where there is none."""
        rows = await self._fetch(query("find_api_key"), {"key_id": key_id})
        return msgspec.convert(rows[0], StoredKey) if rows else None

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    async def _fetch(self, statement: LiteralString, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """Run a query. Raises DatabaseUnavailableError, also when the server does not answer in time.

        It is not cancelled then: psycopg would wait many seconds more for a server that is frozen.
        """
        link = self._link
        task = asyncio.create_task(link.run(statement, parameters))
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        done, _ = await asyncio.wait({task}, timeout=_LOOK_UP_S)
        if not done:
            if self._link is link:
                self._link = _Link(self._url)
            if not link.drop():
                task.cancel()
            raise DatabaseUnavailableError("the database does not answer: keys cannot be checked")
        try:
            return task.result()
        except (psycopg.Error, OSError) as error:
            raise DatabaseUnavailableError("the database is away: keys cannot be checked") from error


class _Link:
    """One connection, opened when it is needed, opened again when the server was restarted."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = asyncio.Lock()
        self._connection: AsyncConnection[Any] | None = None
        self._dropped = False

    async def run(self, statement: LiteralString, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """Run a query; it waits for those before it."""
        async with self._lock:
            if self._connection is not None:
                # The server may have been restarted since: then a new connection is worth one try.
                with suppress(psycopg.OperationalError):
                    return await _run(self._connection, statement, parameters)
                await self._connection.close()
                self._connection = None
            if self._dropped:
                raise psycopg.OperationalError("the connection was given up")
            self._connection = await db.writer_connection(self._url, "keys")
            return await _run(self._connection, statement, parameters)

    async def close(self) -> None:
        """Close the connection in good order."""
        if self._connection is not None:
            await self._connection.close()

    def drop(self) -> bool:
        """Break the connection, so that whoever waits for it gets an error; False if there is none yet."""
        self._dropped = True
        if self._connection is None:
            return False
        db.hang_up(self._connection)
        return True


async def _run(
    connection: AsyncConnection[Any], statement: LiteralString, parameters: dict[str, Any]
) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, parameters)
        return await cursor.fetchall()

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

_QUERY_S: Final = 2.0


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


def by_id(rows: list[dict[str, Any]]) -> dict[str, StoredKey]:
    """Read the rows of `find_api_keys`."""
    return {row["key_id"]: msgspec.convert(row, StoredKey) for row in rows}


class KeyStore:
    """Looks keys up, one query at a time, each in 2 s at most.

    Not through the pool of the read routes: slow queries there, and its long pauses between two tries to
    connect, would keep readings from being taken.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.database_url
        self._link = _Link(self._url)
        self._lock = asyncio.Lock()

    async def keys_on(self) -> bool:
        """Tell whether there ever was a key."""
        [row] = await self._fetch(query("any_api_key"), {})
        return bool(row["keys_on"])

    async def find(self, key_ids: list[str]) -> dict[str, StoredKey]:
        """Give keys by their public parts; those that do not exist are left out."""
        return by_id(await self._fetch(query("find_api_keys"), {"key_ids": key_ids}))

    async def close(self) -> None:
        """Close the connection; a look-up that is still under way fails, and makes no other one."""
        self._link.drop()
        async with self._lock:
            await self._link.close()

    async def _fetch(self, statement: LiteralString, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """Run a query. Raises DatabaseUnavailableError, also when the server does not answer in time.

        It is not cancelled then: psycopg would wait many seconds more for a server that is frozen.
        """
        link = self._link
        # What waits for the query before it has not begun yet, and no time is counted.
        async with self._lock:
            if self._link is link:
                task = asyncio.create_task(link.run(statement, parameters))
                task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
                done, _ = await asyncio.wait({task}, timeout=_QUERY_S)
                if not done:
                    link.drop()
                    self._link = _Link(self._url)
        if self._link is not link:
            raise DatabaseUnavailableError("the database does not answer; try again soon")
        try:
            return task.result()
        except (psycopg.Error, OSError) as error:
            raise DatabaseUnavailableError("the database is away; try again soon") from error


class _Link:
    """One connection, opened when it is needed, opened again when the server was restarted.

    It runs one query at a time.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: AsyncConnection[Any] | None = None
        self._dropped = False

    async def run(self, statement: LiteralString, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """Run a query."""
        if self._connection is not None:
            # The server may have been restarted since: then a new connection is worth one try.
            with suppress(psycopg.OperationalError):
                return await _run(self._connection, statement, parameters)
            await self.close()
            self._refuse_dropped()
        connection = await db.writer_connection(self._url, "keys")
        self._connection = connection
        if self._dropped:
            # Given up while it was connecting: nobody else would close it.
            await self.close()
        self._refuse_dropped()
        return await _run(connection, statement, parameters)

    async def close(self) -> None:
        """Close the connection in good order."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def drop(self) -> None:
        """Give the link up: break its connection, so that whoever waits for it gets an error, now or soon."""
        self._dropped = True
        if self._connection is not None:
            db.hang_up(self._connection)

    def _refuse_dropped(self) -> None:
        if self._dropped:
            raise psycopg.OperationalError("the connection was given up")


async def _run(
    connection: AsyncConnection[Any], statement: LiteralString, parameters: dict[str, Any]
) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, parameters)
        return await cursor.fetchall()

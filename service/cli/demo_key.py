"""The key by which the demo reaches its own service, where that takes no request without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from service.access import admin
from service.access.admin import NewKey
from service.access.key import Key
from service.embedded.instance import Running
from service.settings import Settings
from service.sql import query
from service.web.principal import INGEST, READ

# It is revoked at the end. This is for a run that was killed, and longer than a demo is left running.
_EXPIRES: Final = timedelta(days=30)


@asynccontextmanager
async def own_key(running: Running) -> AsyncIterator[str]:
    """Give a key that is good for the time of the block, or "" where none is needed.

    The engine is the demo's own, so it is made as `fleetwatt key create` makes one. Not where there is none
    yet: the first key would close a service that is open.
    """
    owner = Settings(migrate_database_url=running.database)
    key = await asyncio.to_thread(_make, owner)
    try:
        yield key.text if key else ""
    finally:
        if key:
            await asyncio.to_thread(_revoke, owner, key)


def _make(owner: Settings) -> Key | None:
    new = NewKey(name="demo", scopes=[INGEST, READ], expires_at=datetime.now(UTC) + _EXPIRES)
    with admin.owner(owner) as connection:
        row = connection.execute(query("any_api_key")).fetchone()
        if not (row and row["keys_on"]):
            return None
        return admin.create(connection, new)[0]


def _revoke(owner: Settings, key: Key) -> None:
    with admin.owner(owner) as connection:
        admin.revoke(connection, key.key_id)

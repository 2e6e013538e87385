"""What the service reads of the keys in the database, on a line of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from service.line import Line
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
    """Looks keys up, one query at a time, each in 2 s at most."""

    def __init__(self, settings: Settings) -> None:
        self._line = Line(settings.database_url, "keys", _QUERY_S)

    async def keys_on(self) -> bool:
        """Tell whether there ever was a key. Raises DatabaseUnavailableError, as `find` does."""
        [row] = await self._line.ask(query("any_api_key"))
        return bool(row["keys_on"])

    async def find(self, key_ids: list[str]) -> dict[str, StoredKey]:
        """Give keys by their public parts; those that do not exist are left out."""
        return by_id(await self._line.ask(query("find_api_keys"), {"key_ids": key_ids}))

    async def close(self) -> None:
        """Close the connection; a look-up that is still under way fails, and makes no other one."""
        await self._line.close()

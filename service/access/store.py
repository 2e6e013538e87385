"""Keys and sign-ins in the database, asked for on a line of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from service.line import Line
from service.settings import Settings
from service.sql import query
from service.web.principal import READ, Principal

_QUERY_S: Final = 2.0


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is stored."""

    key_id: str
    name: str
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


class StoredSignIn(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in as it is stored, with the name of its key; it ends with the key at the latest."""

    key_id: str
    name: str
    expires_at: datetime

    @property
    def expired(self) -> bool:
        """Tell whether its time is over."""
        return self.expires_at <= datetime.now(UTC)

    @property
    def principal(self) -> Principal:
        """Give who holds it: somebody who reads, whatever else the key is good for."""
        return Principal(key_id=self.key_id, scopes=frozenset({READ}))


def by_id(rows: list[dict[str, Any]]) -> dict[str, StoredKey]:
    """Read the rows of `find_api_keys`."""
    return {row["key_id"]: msgspec.convert(row, StoredKey) for row in rows}


class KeyStore:
    """Asks one query at a time, each in 2 s at most. All of it raises DatabaseUnavailableError."""

    def __init__(self, settings: Settings) -> None:
        self._line = Line(settings.database_url, "keys", _QUERY_S)

    async def keys_on(self) -> bool:
        """Tell whether there ever was a key."""
        [row] = await self._line.ask(query("any_api_key"))
        return bool(row["keys_on"])

    async def find(self, key_ids: list[str]) -> dict[str, StoredKey]:
        """Give keys by their public parts; those that do not exist are left out."""
        return by_id(await self._line.ask(query("find_api_keys"), {"key_ids": key_ids}))

    async def find_sign_ins(self, token_hashes: list[str]) -> dict[str, StoredSignIn]:
        """Give sign-ins by the hashes of their tokens, in hexadecimal; those that are over are left out."""
        found = await self._line.ask(query("find_sign_ins"), {"token_hashes": token_hashes})
        return {row.pop("token_hash"): msgspec.convert(row, StoredSignIn) for row in found}

    async def begin_sign_in(self, token_sha256: bytes, key_id: str, last_hours: float) -> datetime | None:
        """Store a sign-in; give its end, None where the key is not good for reading (any more)."""
        [row] = await self._line.ask(
            query("begin_sign_in"),
            {"token_sha256": token_sha256, "key_id": key_id, "last_hours": last_hours},
        )
        ends: datetime | None = row["expires_at"]
        return ends

    async def end_sign_in(self, token_sha256: bytes) -> None:
        """End a sign-in, if there is one."""
        await self._line.ask(query("end_sign_in"), {"token_sha256": token_sha256})

    async def close(self) -> None:
        """Close the connection; a look-up that is still under way fails, and makes no other one."""
        await self._line.close()

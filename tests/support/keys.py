"""API keys for the tests, made as `fleetwatt key` makes them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from service.access import admin
from service.access.admin import NewKey
from service.access.key import Key
from service.settings import Settings


def make_key(
    settings: Settings,
    *scopes: str,
    meters: tuple[str, ...] = (),
    vehicles: tuple[str, ...] = (),
    expires_at: datetime | None = None,
) -> Key:
    """Store a key and give it."""
    new = NewKey(name="test", scopes=scopes, meter_ids=meters, vehicle_ids=vehicles, expires_at=expires_at)
    with admin.owner(settings) as connection:
        return admin.create(connection, new)[0]


def revoke_key(settings: Settings, key: Key) -> None:
    """Revoke a key."""
    with admin.owner(settings) as connection:
        admin.revoke(connection, key.key_id)


def bearer(key: Key | str) -> dict[str, Any]:
    """Give the headers that show a key."""
    return {"authorization": f"Bearer {key.text if isinstance(key, Key) else key}"}

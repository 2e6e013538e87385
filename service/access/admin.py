"""Making, listing and revoking keys: the owner's part, for the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
import psycopg
from psycopg import Connection
from psycopg.rows import dict_row

from service import dsn
from service.access.key import KEY_ID, Key, make
from service.errors import FleetwattError, SettingsError, no_answer
from service.settings import Settings
from service.sql import query

Owner = Connection[dict[str, Any]]


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is to be good for. Devices bind it: without any, it is for all."""

    name: str
    scopes: Sequence[str]
    meter_ids: Sequence[str] = ()
    vehicle_ids: Sequence[str] = ()
    expires_at: datetime | None = None


class ListedKey(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A key as its owner sees it; `state` is active, expired or revoked."""

    key_id: str
    name: str
    scopes: list[str]
    meter_ids: list[str] | None
    vehicle_ids: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    state: str


@contextmanager
def owner(settings: Settings) -> Iterator[Owner]:
    """Connect as the owner of the tables. Raises FleetwattError that says what is missing for that."""
    url = dsn.of_owner(settings)
    if not url:
        raise SettingsError("no database: set FLEETWATT_MIGRATE_DATABASE_URL to one whose role may make keys")
    try:
        with psycopg.connect(
            url,
            connect_timeout=10,
            options="-c timezone=UTC",
            row_factory=dict_row,
            application_name="fleetwatt key",
        ) as (connection):
            # Whoever may migrate may be the owner; the service's role may not.
            connection.execute("set local role fleetwatt_owner")
            yield connection
    except psycopg.errors.InsufficientPrivilege:
        raise FleetwattError(
            "this role may not make keys: set FLEETWATT_MIGRATE_DATABASE_URL to the role that migrates"
        ) from None
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedObject,
        psycopg.errors.InvalidParameterValue,
    ):
        raise FleetwattError("the database has no table of keys yet: run `fleetwatt migrate`") from None
    except psycopg.OperationalError as error:
        raise no_answer(error) from None


def create(connection: Owner, new: NewKey, given: Key | None = None) -> tuple[Key, bool]:
    """Store a new key; give it, and whether it is the first one ever, by which keys become required.

    `given` is stored instead of one that is made here. If it is there already it stays as it is, good or
    revoked. Raises FleetwattError where another key has its id.
    """
    key = given or make()
    bound = bool(new.meter_ids or new.vehicle_ids)
    row = connection.execute(
        query("create_api_key"),
        {
            "key_id": key.key_id,
            "key_name": new.name,
            "key_scopes": list(new.scopes),
            "secret_sha256": key.sha256,
            "key_meter_ids": list(new.meter_ids) if bound else None,
            "key_vehicle_ids": list(new.vehicle_ids) if bound else None,
            "expires_at": new.expires_at,
        },
    ).fetchone()
    if row is not None:
        return key, bool(row["is_first"])
    [stored] = connection.execute(query("find_api_keys"), {"key_ids": [key.key_id]})
    if not key.matches(stored["secret_sha256"]):
        raise FleetwattError(f"there is another key with the id {key.key_id}: make a new one")
    return key, False


def listed(connection: Owner) -> list[ListedKey]:
    """Give all keys, the oldest first."""
    return [ListedKey(**row) for row in connection.execute(query("list_api_keys"))]


def revoke(connection: Owner, key_id: str) -> tuple[str, bool]:
    """Revoke a key; give its name, and whether it was good until now.

    Raises FleetwattError where there is no such key; its text never holds what may be a whole key.
    """
    if KEY_ID.fullmatch(key_id) is None:
        raise FleetwattError("that is no key id: it is the 12 characters between fw_ and the next _")
    row = connection.execute(query("revoke_api_key"), {"key_id": key_id}).fetchone()
    if row is None:
        raise FleetwattError(f"there is no key {key_id}: see `fleetwatt key list`")
    return row["name"], bool(row["is_new"])

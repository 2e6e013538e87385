"""Where the service may listen: anywhere with keys, without them on loopback only."""

from __future__ import annotations

from typing import Final

import psycopg

from service import db, log
from service.errors import SettingsError, is_transient
from service.loopback import is_loopback
from service.settings import Settings
from service.sql import query

_HOW: Final = (
    "make one first: fleetwatt key create --name NAME --scope admin (or ingest, or read),"
    " with FLEETWATT_MIGRATE_DATABASE_URL set"
)


def require_keys(settings: Settings) -> None:
    """Refuse, with SettingsError, to be reachable from elsewhere while no key is good for anything.

    While the database is away nobody knows: the service may start then, since it takes no request until
    keys can be checked.
    """
    if is_loopback(settings.http_host):
        return
    where = f"FLEETWATT_HTTP_HOST={settings.http_host}"
    try:
        with psycopg.connect(
            db.require_url(settings),
            autocommit=True,
            connect_timeout=5,
            options="-c statement_timeout=5s",
            application_name="fleetwatt start",
        ) as connection:
            row = connection.execute(query("count_working_api_keys")).fetchone()
    except psycopg.errors.UndefinedTable:
        raise SettingsError(
            f"{where}: without keys the service listens on loopback only, and the database has no schema"
            f" yet: run fleetwatt migrate, then {_HOW}"
        ) from None
    except psycopg.Error as error:
        if not is_transient(error):
            raise
        log.get("http").warning("keys_not_checked", detail="the database is away", host=settings.http_host)
        return
    if row is None or row[0] == 0:
        raise SettingsError(
            f"{where}: without keys the service listens on loopback only, and no key works now: {_HOW}"
        )

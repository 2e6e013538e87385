"""The database's address: whether it can be read, and whether the way there is protected."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import conninfo, pq

from service import log
from service.errors import SettingsError
from service.loopback import is_loopback
from service.settings import Settings

# libpq takes these to mean: encrypted if the server likes, and whoever it is.
_WEAK: Final = frozenset({"disable", "allow", "prefer"})


def check(url: str, variable: str = "FLEETWATT_DATABASE_URL") -> dict[str, Any]:
    """Give the parameters of an address of PostgreSQL, or raise SettingsError.

    libpq and the resolver would say what they stumbled over, and that may be a piece of the password.
    """
    try:
        parameters = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        parameters = {"port": "none"}
    ports = str(parameters.get("port") or "").split(",")
    # A password with a / in it ends up in the name of the database.
    if "@" in str(parameters.get("dbname", "")) or not all(not port or port.isdecimal() for port in ports):
        raise SettingsError(
            f"{variable} cannot be read: it must look like postgresql://user:password@host:5432/database, "
            "what is special in user and password percent-encoded (%2F for /, %40 for @, %25 for %)"
        )
    return parameters


def of_owner(settings: Settings) -> str:
    """Give the address of the role that may create tables, "" for none; SettingsError for a bad one."""
    for variable, url in (
        ("FLEETWATT_MIGRATE_DATABASE_URL", settings.migrate_database_url),
        ("FLEETWATT_DATABASE_URL", settings.database_url),
    ):
        if url:
            check(url, variable)
            return url
    return ""


def unprotected(url: str, variable: str = "FLEETWATT_DATABASE_URL") -> str | None:
    """Give the host to which passwords and readings may go unencrypted; None where that cannot be."""
    parameters = {
        option.keyword.decode(): (option.val or b"").decode() for option in pq.Conninfo.get_defaults()
    }
    parameters |= check(url, variable)
    if parameters["sslmode"] not in _WEAK:
        return None
    names = str(parameters.get("hostaddr") or parameters.get("host") or "").split(",")
    return next((name for name in names if not _is_socket(name) and not is_loopback(name)), None)


def _is_socket(host: str) -> bool:
    """Tell whether libpq takes a host for a Unix socket's folder; its own default is one."""
    return not host or host.startswith(("/", "@"))


def warn_unprotected(url: str, variable: str = "FLEETWATT_DATABASE_URL") -> None:
    """Log one warning where the connection to the database may be read, or taken over, on its way."""
    host = unprotected(url, variable)
    if host is not None:
        log.get("database").warning(
            "database_not_protected",
            host=host,
            hint=f"add ?sslmode=verify-full&sslrootcert=... to {variable}, or sslmode=require",
        )

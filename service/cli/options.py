"""What several commands share: settings that know about a running `fleetwatt up`, and option types."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

import msgspec
import rich_click as click

from service import settings as settings_module
from service.access import key
from service.embedded import instance
from service.errors import SettingsError
from service.settings import PREFIX, Settings

_ANYWHERE: Final = frozenset({str(IPv4Address(0)), str(IPv6Address(0))})

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the embedded servers' data.  [default: a private folder of the user]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def client_settings(data_dir: Path | None = None) -> Settings:
    """Give the settings of a command that uses a running engine (import, seed, simulate, migrate).

    Addresses, and how long data are kept, are those of the running `fleetwatt up` (or demo), if there is one,
    where they are not set. `serve` and `worker` are the engine, and take nothing but what is set.
    """
    settings = settings_module.load()
    running = instance.find_running(settings, data_dir)
    if running is None:
        return settings
    if not settings.mqtt_url:
        # These are for a broker of the user's own.
        nothing = dict.fromkeys(settings_module.BROKER_CREDENTIALS, "")
        settings = msgspec.structs.replace(settings, **nothing)
    if not settings.database_url and not settings.migrate_database_url:
        unset = {
            name: value
            for name, value in running.rules.items()
            if f"{PREFIX}{name.upper()}" not in os.environ
        }
        settings = msgspec.structs.replace(settings, **unset)
    return msgspec.structs.replace(
        settings,
        database_url=settings.database_url or running.service_database,
        migrate_database_url=settings.migrate_database_url or running.database,
        mqtt_url=settings.mqtt_url or running.mqtt,
        http_port=running.http_port,
    )


def service_url(settings: Settings) -> str:
    """Give the address of the HTTP service that the settings describe, as seen from this machine."""
    # A service that listens everywhere is asked here.
    host = settings.http_host if settings.http_host not in _ANYWHERE else "127.0.0.1"
    scheme = "https" if settings.http_tls_cert_file else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.http_port}"


def own_api_key(settings: Settings) -> str:
    """Give the key that our own requests send; SettingsError, without showing it, for what is none."""
    if settings.api_key and key.parse(settings.api_key) is None:
        raise SettingsError("FLEETWATT_API_KEY is no key: it is fw_, 12 characters, _ and 43 more")
    return settings.api_key


class Duration(click.ParamType[float]):
    """A duration such as 30, 90s, 5m, 2h or 1d, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Give the duration in seconds."""
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?", str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration: write 30, 90s, 5m, 2h or 1d", param, ctx)
        factor = {"ms": 0.001, None: 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]
        return float(match[1]) * factor

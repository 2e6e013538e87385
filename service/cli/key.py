"""`fleetwatt key`: make, list and revoke the keys of the HTTP service."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import rich_click as click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service import secret
from service.access import admin
from service.access.admin import ListedKey, NewKey
from service.access.key import Key, parse
from service.cli.options import Duration, client_settings, data_dir_option, json_option
from service.errors import SettingsError
from service.loopback import is_loopback
from service.web import parameters
from service.web.answers import rfc3339
from service.web.principal import ADMIN, INGEST, SCOPES
from service.web.problems import Problem

_LONGEST: Final = timedelta(days=36_500)


class _Expiry(click.ParamType[datetime]):
    """A moment ahead: a duration such as 90d, or RFC 3339."""

    name = "90d|TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Give the moment."""
        text, now = str(value), datetime.now(UTC)
        moment: datetime | None = None
        if re.match(r"\d{4}-", text):
            try:
                moment = parameters.timestamp("--expires", text)
            except Problem as problem:
                self.fail(problem.detail, param, ctx)
        elif text.isdecimal() or not text[:1].isdecimal():
            # A bare number is seconds elsewhere, and would be taken for days here.
            self.fail(
                f"{text!r} is not a duration with its unit, such as 90d, nor a time, such as "
                "2027-01-31T12:00:00Z",
                param,
                ctx,
            )
        else:
            seconds = Duration().convert(text, param, ctx)
            if seconds <= _LONGEST.total_seconds():
                moment = now + timedelta(seconds=seconds)
        if moment is None or moment > now + _LONGEST:
            self.fail(
                f"{text!r} is more than 100 years ahead: leave it out for a key without an end", param, ctx
            )
        if moment <= now:
            self.fail(f"{text!r} is over already", param, ctx)
        return moment


class _DeviceId(click.ParamType[str]):
    """A device's id."""

    name = "ID"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it by the rule of readings."""
        try:
            return parameters.device(param.opts[0] if param else "id", str(value))
        except Problem as problem:
            self.fail(problem.detail, param, ctx)


@click.group("key")
def command() -> None:
    """Keys of the HTTP service: who may send readings, read, or do everything."""


@command.command("create")
@click.option("--name", help="What it is for, in your words.  [default: its scopes]")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    required=True,
    multiple=True,
    help="ingest: send readings and sessions; read: ask; admin: everything. Several may be given.",
)
@click.option(
    "--expires", type=_Expiry(), metavar="90d|TIME", help="When it ends: 90d, or a time.  [default: never]"
)
@click.option("--meter", "meter_ids", type=_DeviceId(), multiple=True, help="Only this meter's; repeatable.")
@click.option("--vehicle", "vehicle_ids", type=_DeviceId(), multiple=True, help="Only this vehicle's; too.")
@click.option(
    "--key-file",
    type=click.Path(),
    help="Take the key from this file instead of making one; one that is there already is left as it is.",
)
@json_option
@data_dir_option
def create_command(
    *,
    name: str | None,
    scopes: tuple[str, ...],
    expires: datetime | None,
    meter_ids: tuple[str, ...],
    vehicle_ids: tuple[str, ...],
    key_file: str | None,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Make a key and print it, this once: only its hash is stored.

    From the first key on every request needs one. A key that is bound to meters and vehicles sends their
    readings and no others, and writes no sessions.
    """
    if name is None:
        name = ", ".join(sorted(set(scopes)))
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise click.BadParameter("1 to 100 characters, on one line", param_hint="--name")
    if (meter_ids or vehicle_ids) and (INGEST not in scopes or ADMIN in scopes):
        raise click.UsageError("devices bind what a key sends: --meter and --vehicle go with --scope ingest")
    new = NewKey(
        name=name,
        scopes=sorted(set(scopes)),
        meter_ids=sorted(set(meter_ids)),
        vehicle_ids=sorted(set(vehicle_ids)),
        expires_at=expires,
    )
    given = _given(key_file) if key_file else None
    settings = client_settings(data_dir)
    with admin.owner(settings) as connection:
        key, is_first = admin.create(connection, new, given)
    if given:
        click.echo(f"key {key.key_id} ({name}) is stored")
        return
    if as_json:
        made = {"key": key.text, "keyId": key.key_id, "expiresAt": rfc3339(expires), "first": is_first}
        click.echo(msgspec.json.encode(made))
    else:
        click.echo(key.text)
    end = f"until {rfc3339(expires)}" if expires else "without an end"
    click.echo(
        f"key {key.key_id} ({name}), {', '.join(new.scopes)}, {end}. Keep it now: it is not shown again.\n"
        f"Send it as `Authorization: Bearer ...`; `fleetwatt key revoke {key.key_id}` ends it.",
        err=True,
    )
    if is_first and is_loopback(settings.http_host):
        click.echo(
            f"It is the first one: within {settings.key_cache_s:g} s the service takes no request without a"
            " key any more. Devices that send over HTTP without one get 401 until they have theirs.",
            err=True,
        )


@command.command("list")
@json_option
@data_dir_option
def list_command(*, as_json: bool, data_dir: Path | None) -> None:
    """List all keys, the oldest first: what each is for and good for, never the keys themselves."""
    with admin.owner(client_settings(data_dir)) as connection:
        found = admin.listed(connection)
    if as_json:
        click.echo(msgspec.json.encode({"keys": found}))
        return
    table = Table("id", "name", "scopes", "devices", "created", "expires", "last used", "state", box=None)
    for key in found:
        table.add_row(
            key.key_id,
            escape(key.name),
            ", ".join(key.scopes),
            _devices(key),
            _minute(key.created_at),
            _minute(key.expires_at) or "never",
            _minute(key.last_used_at) or "never",
            key.state,
        )
    # A pipe has no width; nothing may be cut off or folded there.
    Console(width=None if os.isatty(1) else 10_000, highlight=False).print(table)


@command.command("revoke")
@click.argument("key_id")
@data_dir_option
def revoke_command(*, key_id: str, data_dir: Path | None) -> None:
    """End the key KEY_ID for good: running services refuse it within FLEETWATT_KEY_CACHE_S."""
    settings = client_settings(data_dir)
    with admin.owner(settings) as connection:
        name, is_new = admin.revoke(connection, key_id)
    if is_new:
        click.echo(f"key {key_id} ({name}) is revoked; services refuse it within {settings.key_cache_s:g} s")
    else:
        click.echo(f"key {key_id} ({name}) was revoked before")


def _given(file: str) -> Key:
    """Read a key that others have made: containers get theirs as secrets, before there is a database."""
    found = parse(secret.read_file("--key-file", file))
    if found is None:
        raise SettingsError(
            f"--key-file: {file!r} holds no key: it is fw_, 12 characters of a-z and 0-9, "
            "_ and 43 of Base64 for URLs"
        )
    return found


def _devices(key: ListedKey) -> str:
    named = [
        *(f"meter {one}" for one in key.meter_ids or ()),
        *(f"vehicle {one}" for one in key.vehicle_ids or ()),
    ]
    return ", ".join(named) if named else "all"


def _minute(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ") if moment else ""

"""`fleetwatt sessions`: import, list, start and end charging sessions."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table

from service import log
from service.cli.database import with_pool
from service.cli.options import client_settings, data_dir_option, json_option
from service.cli.progress import file_progress
from service.errors import FleetwattError, ImportFileError
from service.importer.report import rejects_file
from service.sessions.imports import SessionImport, import_sessions
from service.sessions.model import NewSession, Session, SessionUpdate
from service.sessions.rows import SessionMapping
from service.sessions.store import Sessions
from service.web import parameters
from service.web.answers import rfc3339

_IMPORT_HELP = """Import charging sessions from FILE: CSV, plain or gzip, or "-" for standard input.

Each row becomes a session, or is refused with a reason (--report keeps all of them); a refused row stops
nothing. Importing a file again changes nothing: what is there already is counted as such. Where a row was
refused the exit code is 1, unless --no-strict is given.

A COLUMN is a column's name. An id may be several columns, joined by ":", or a constant `=VALUE`; without
--session-id it follows from vehicle, meter and start. Ids with other characters than A-Z a-z 0-9 . _ : - are
refused, not rewritten, since two different ones could become one. Of sessions that overlap on a meter the
one that starts first is taken. The whole file is held in memory.

Public charging, local time in two columns, newest first:

\b
    fleetwatt sessions import sessions_dundee.csv --session-id "Charging event" \\
        --vehicle-id "User ID" --meter-id "CP ID,Connector" \\
        --start "Start Date,Start Time" --end "End Date,End Time" \\
        --time-format "%d/%m/%Y %H:%M" --tz Europe/London --energy "Total kWh" --max-hours 24
"""

T = TypeVar("T")


@click.group("sessions")
def command() -> None:
    """Charging sessions: which vehicle drew from which meter, and when."""


@command.command("import", help=_IMPORT_HELP)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--vehicle-id", metavar="COLUMN[,COLUMN]|=ID", help="The vehicle.")
@click.option("--meter-id", metavar="COLUMN[,COLUMN]|=ID", help="The meter, such as charge point,connector.")
@click.option("--session-id", metavar="COLUMN[,COLUMN]", help="The session's own id, if it has one.")
@click.option("--start", metavar="COLUMN[,COLUMN]", help="Start; two columns are joined by a space.")
@click.option("--end", metavar="COLUMN[,COLUMN]", help="End; two columns are joined by a space.")
@click.option(
    "--time-format", metavar="FORMAT", help="As for strptime, or unix, or unix-ms.  [default: ISO 8601]"
)
@click.option("--tz", metavar="ZONE", help="Zone of times that have none, such as Europe/London.")
@click.option("--energy", metavar="COLUMN", help="Refuse rows in which it is negative; it is not stored.")
@click.option("--decimal-comma", is_flag=True, help="The energy is written 1,5.")
@click.option(
    "--max-hours",
    type=click.FloatRange(min=0, min_open=True),
    help="Refuse longer sessions.  [default: any length]",
)
@click.option("--open-ends", is_flag=True, help="Take rows without an end as open sessions.")
@click.option("--delimiter", help="One character, or tab.  [default: found out: , ; tab |]")
@click.option("--encoding", default="utf-8", show_default=True, help="Encoding of the file, such as cp1252.")
@click.option("--dry-run", is_flag=True, help="Read and check everything, store nothing; needs no database.")
@click.option(
    "--report",
    "report_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write refused rows there: NDJSON if it is called .ndjson, otherwise CSV.",
)
@click.option(
    "--strict/--no-strict",
    default=True,
    show_default=True,
    help="Exit with 1 when a row was refused, or with 0 all the same.",
)
@json_option
@data_dir_option
def import_command(
    *,
    file: Path,
    delimiter: str | None,
    encoding: str,
    dry_run: bool,
    report_file: Path | None,
    strict: bool,
    as_json: bool,
    data_dir: Path | None,
    **mapping: Any,
) -> None:
    """Read the options, import, report."""
    settings = client_settings(data_dir)
    log.configure(settings.log_level, settings.log_format)
    options = SessionImport(
        path=file,
        mapping=SessionMapping(**mapping),
        delimiter=delimiter,
        encoding=encoding,
        dry_run=dry_run,
    )
    if report_file is not None and report_file.exists() and file.exists() and report_file.samefile(file):
        raise ImportFileError("--report would overwrite the file that is imported")
    with (
        rejects_file(report_file) if report_file else nullcontext() as on_rejected,
        file_progress(file.name) as show,
    ):
        report = asyncio.run(import_sessions(options, settings, show, on_rejected))
    if as_json:
        click.echo(msgspec.json.encode(report.as_json()))
    else:
        click.echo(report.summary())
        for line in report.details():
            click.echo(f"  {line}")
    if strict and report.rejected:
        sys.exit(1)


@command.command("list")
@click.option("--vehicle-id", help="Only this vehicle's.")
@click.option("--meter-id", help="Only this meter's.")
@click.option("--from", "from_", metavar="TIME", help="Only those that touch the time from then on.")
@click.option("--to", metavar="TIME", help="Only those that touch the time before then.")
@click.option("--open/--ended", "is_open", default=None, help="Only open ones, or only ended ones.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Most rows.")
@json_option
@data_dir_option
def list_command(
    *,
    vehicle_id: str | None,
    meter_id: str | None,
    from_: str | None,
    to: str | None,
    is_open: bool | None,
    limit: int,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """List sessions, newest start first."""

    async def find(sessions: Sessions) -> list[Session]:
        start, end = parameters.open_window(from_, to)
        return await sessions.list(
            {
                "vehicle_id": vehicle_id,
                "meter_id": meter_id,
                "window_from": start,
                "window_to": end,
                "is_open": is_open,
                "after_start": None,
                "after_id": None,
                "page_size": limit,
            }
        )

    found = _with_sessions(data_dir, find)
    if as_json:
        click.echo(msgspec.json.encode({"sessions": found}))
        return
    table = Table("session", "vehicle", "meter", "start", "end", box=None)
    for each in found:
        end = rfc3339(each.ended_at) or "open"
        table.add_row(each.session_id, each.vehicle_id, each.meter_id, rfc3339(each.started_at), end)
    # Ids are to be read, and copied, whole: a narrow terminal wraps the lines, and nothing is cut.
    Console(width=10_000, highlight=False).print(table)
    if len(found) == limit:
        click.echo(f"the first {limit}; --limit shows more")


@command.command("start")
@click.argument("vehicle_id")
@click.argument("meter_id")
@click.option("--at", metavar="TIME", help="When it started, RFC 3339.  [default: now]")
@click.option("--until", metavar="TIME", help="When it ended.  [default: it is open]")
@click.option("--session-id", help="Id of the session.  [default: a random one]")
@json_option
@data_dir_option
def start_command(
    *,
    vehicle_id: str,
    meter_id: str,
    at: str | None,
    until: str | None,
    session_id: str | None,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Start a session of VEHICLE_ID on METER_ID."""

    async def start(sessions: Sessions) -> Session:
        new = NewSession(
            vehicle_id=parameters.device("VEHICLE_ID", vehicle_id),
            meter_id=parameters.device("METER_ID", meter_id),
            started_at=parameters.timestamp("at", at) or datetime.now(UTC),
            ended_at=parameters.timestamp("until", until),
            session_id=parameters.device("session-id", session_id) if session_id else None,
        )
        return (await sessions.add(new))[0]

    _tell(_with_sessions(data_dir, start), as_json=as_json)


@command.command("end")
@click.argument("session_id")
@click.option("--at", metavar="TIME", help="When it ended, RFC 3339.  [default: now]")
@json_option
@data_dir_option
def end_command(*, session_id: str, at: str | None, as_json: bool, data_dir: Path | None) -> None:
    """End the open session SESSION_ID."""

    async def end(sessions: Sessions) -> Session:
        known = await sessions.get(parameters.device("SESSION_ID", session_id))
        moment = parameters.timestamp("at", at) or datetime.now(UTC)
        if known.ended_at is not None and known.ended_at != moment:
            raise FleetwattError(f"session {session_id} ended already, at {rfc3339(known.ended_at)}")
        return await sessions.change(session_id, SessionUpdate(ended_at=moment))

    _tell(_with_sessions(data_dir, end), as_json=as_json)


def _with_sessions(data_dir: Path | None, work: Callable[[Sessions], Awaitable[T]]) -> T:
    """Do something with the sessions in the database; what it refuses is told in words."""
    return with_pool(data_dir, lambda pool, _settings: work(Sessions(pool, source="cli")))


def _tell(session: Session, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(session))
        return
    end = f"ended {rfc3339(session.ended_at)}" if session.ended_at else "open"
    click.echo(
        f"session {session.session_id}: vehicle {session.vehicle_id} on meter {session.meter_id}, "
        f"started {rfc3339(session.started_at)}, {end}"
    )

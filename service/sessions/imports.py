"""One import of sessions: a CSV file, read whole, sorted, written in batches.

Every row becomes a session, or is the same as one that is stored, or is refused with a reason. Nothing of
that depends on how far an earlier import of the file came: rows are tried meter by meter in the order of
time, whatever the order of the file, so of two that overlap the one that starts first is the session.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
import psycopg
from psycopg import AsyncConnection

from service import db
from service.errors import NO_SCHEMA, ImportFileError, no_answer, no_schema
from service.importer.refusal import Refusal
from service.importer.report import ImportReport, OnRejected, RejectedLine
from service.importer.source import open_source
from service.importer.table import read_table
from service.sessions.model import Session
from service.sessions.rows import SessionMapping, SessionReader
from service.settings import Settings
from service.sql import query

_BATCH: Final = 2000
_TRIES: Final = 5
_NO_END: Final = datetime.max.replace(tzinfo=UTC)

# What became of a row: a new session, one that is stored already, or none.
Fate = Literal["new", "there"] | Refusal
# Called with the bytes of the file read so far, and its size if it has one.
OnProgress = Callable[[int, int | None], None]


class SessionImport(msgspec.Struct, frozen=True, kw_only=True):
    """What to import and how to read it; a delimiter of None is found out from the file."""

    path: Path
    mapping: SessionMapping = SessionMapping()
    delimiter: str | None = None
    encoding: str = "utf-8"
    dry_run: bool = False


class SessionReport(ImportReport, kw_only=True):
    """Counts over rows: lines = accepted (new sessions) + duplicates (already there) + rejected."""

    def summary(self) -> str:
        """Give the counts in one line."""
        return (
            f"read {self.lines} rows: {self.accepted} new sessions, {self.duplicates} already there, "
            f"{self.rejected} refused" + (" - dry run, nothing was stored" if self.dry_run else "")
        )

    def as_json(self) -> dict[str, Any]:
        """Give the counts and the reasons for a program."""
        reasons = sorted(self.reasons.values(), key=lambda one: -one.count)
        return {
            "rows": self.lines,
            "stored": self.accepted,
            "alreadyThere": self.duplicates,
            "refused": self.rejected,
            "dryRun": self.dry_run,
            "reasons": [
                {"field": one.field, "code": one.code, "message": one.message, "count": one.count}
                for one in reasons
            ],
        }


class _Row(NamedTuple):
    """A row that is a session by itself; whether it can be stored is another question."""

    session: Session
    line: int
    raw: bytes


class _Sorted(NamedTuple):
    """Rows in the order in which they are tried, and the lines that say the same as one of them."""

    rows: list[_Row]
    repeats: dict[int, list[_Row]]


class _Compared(NamedTuple):
    """A row of the query compare_sessions."""

    place: int
    same: bool | None
    other_id: str | None
    other_vehicle: str | None


async def import_sessions(
    options: SessionImport,
    settings: Settings,
    on_progress: OnProgress | None = None,
    on_rejected: OnRejected | None = None,
) -> SessionReport:
    """Import a file; a dry run reads and checks it, and looks for overlaps within it, without a database.

    `on_rejected` gets each refused row in the order of the file. Raises ImportFileError when the file cannot
    be read, or the database refuses a batch: what came before is stored, and importing it again is safe.
    """
    report = SessionReport(dry_run=options.dry_run)
    refused: list[RejectedLine] = []
    rows = _read(options, report, refused, on_progress)
    tried = _sort(rows, refused)
    if options.dry_run:
        _count(report, tried, tried.rows, _fates_by_themselves(tried.rows), refused)
    else:
        await _store_all(settings, report, tried, refused)
    for line in sorted(refused, key=lambda one: one.line):
        report.reject(line)
        if on_rejected is not None:
            on_rejected(line)
    return report


def _read(
    options: SessionImport,
    report: SessionReport,
    refused: list[RejectedLine],
    on_progress: OnProgress | None,
) -> list[_Row]:
    """Read the whole file: sessions are few, and their order in time is not that of the file."""
    rows: list[_Row] = []
    with open_source(options.path) as source:
        table = read_table(source, options.delimiter, options.encoding)
        reader = SessionReader(options.mapping, table.header)
        for block, cells in table.blocks:
            for line, raw, row in zip(block.numbers, block.lines, cells, strict=True):
                result = reader.read(row)
                if isinstance(result, Refusal):
                    refused.append(RejectedLine(line, result.field, result.code, result.message, raw))
                else:
                    rows.append(_Row(result, line, raw))
            report.lines += len(block.lines)
            if on_progress is not None:
                on_progress(source.bytes_read, source.size_bytes)
    report.devices.update(row.session.meter_id for row in rows)
    return rows


def _order(row: _Row) -> tuple[Any, ...]:
    session = row.session
    end = session.ended_at or _NO_END
    return session.meter_id, session.started_at, end, session.vehicle_id, session.session_id, row.line


def _sort(rows: list[_Row], refused: list[RejectedLine]) -> _Sorted:
    """Order rows by meter and time. Of those with one id the first is tried, and what differs is refused.

    That is decided here and not by what is stored, or a second import could decide otherwise.
    """
    first: dict[str, _Row] = {}
    repeats: dict[int, list[_Row]] = {}
    for row in sorted(rows, key=_order):
        known = first.setdefault(row.session.session_id, row)
        if known is row:
            continue
        if known.session == row.session:
            repeats.setdefault(known.line, []).append(row)
        else:
            message = f"line {known.line} has another session of the id {row.session.session_id}"
            refused.append(RejectedLine(row.line, "sessionId", "session_exists", message, row.raw))
    return _Sorted(list(first.values()), repeats)


async def _store_all(
    settings: Settings, report: SessionReport, tried: _Sorted, refused: list[RejectedLine]
) -> None:
    async with await _connect(settings) as connection:
        for start in range(0, len(tried.rows), _BATCH):
            batch = tried.rows[start : start + _BATCH]
            try:
                fates = await _store(connection, batch)
            except NO_SCHEMA:
                raise no_schema() from None
            except psycopg.Error as error:
                raise ImportFileError(
                    f"the database refused to go on (SQLSTATE {error.sqlstate}): {error}; {report.accepted} "
                    "sessions were stored until there, and importing the file again is safe"
                ) from error
            _count(report, tried, batch, fates, refused)


def _count(
    report: SessionReport, tried: _Sorted, rows: list[_Row], fates: list[Fate], refused: list[RejectedLine]
) -> None:
    """Count what became of rows; a line that says the same as one of them shares its fate."""
    for row, fate in zip(rows, fates, strict=True):
        repeats = tried.repeats.get(row.line, [])
        if isinstance(fate, Refusal):
            refused += [
                RejectedLine(each.line, fate.field, fate.code, fate.message, each.raw)
                for each in (row, *repeats)
            ]
            continue
        report.accepted += fate == "new"
        report.duplicates += len(repeats) + (fate == "there")


def _fates_by_themselves(rows: list[_Row]) -> list[Fate]:
    """Say what would become of rows in an empty database: each meter serves one vehicle at a time."""
    fates: list[Fate] = []
    last: Session | None = None
    for row in rows:
        session = row.session
        if (
            last is not None
            and last.meter_id == session.meter_id
            and (last.ended_at is None or session.started_at < last.ended_at)
        ):
            fates.append(_overlap(last.session_id, last.vehicle_id))
            continue
        fates.append("new")
        last = session
    return fates


async def _store(connection: AsyncConnection[tuple[Any, ...]], batch: list[_Row]) -> list[Fate]:
    """Store a batch in one transaction, and find out about the rows that could not be."""
    fates: dict[int, Fate] = {}
    left = batch
    for _ in range(_TRIES):
        try:
            async with connection.transaction():
                await connection.execute(query("name_source"), {"source": "import"})
                stored = await connection.execute(query("import_sessions"), _columns(left))
                new = {session_id for (session_id,) in await stored.fetchall()}
                other = [row for row in left if row.session.session_id not in new]
                compared = await connection.execute(query("compare_sessions"), _columns(other))
                found = [_Compared(*answer) for answer in await compared.fetchall()]
        except psycopg.errors.DeadlockDetected:
            continue
        fates |= {row.line: "new" for row in left if row.session.session_id in new}
        for answer in found:
            row = other[answer.place - 1]
            fate = _fate(row.session, answer)
            if fate is not None:
                fates[row.line] = fate
        # What was in the way of a row may be gone when we look: it is tried again.
        left = [row for row in left if row.line not in fates]
        if not left:
            return [fates[row.line] for row in batch]
    raise ImportFileError("others change the same sessions all the time; importing the file again is safe")


def _fate(session: Session, answer: _Compared) -> Fate | None:
    if answer.same is not None:
        if answer.same:
            return "there"
        message = f"session {session.session_id} is stored with other values; it may have been corrected"
        return Refusal("sessionId", "session_exists", message)
    if answer.other_id is not None:
        return _overlap(answer.other_id, str(answer.other_vehicle))
    return None


def _overlap(session_id: str, vehicle_id: str) -> Refusal:
    message = f"the meter is taken in that time by session {session_id} of vehicle {vehicle_id}"
    return Refusal("meterId", "session_overlap", message)


def _columns(rows: list[_Row]) -> dict[str, list[Any]]:
    return {
        "session_ids": [row.session.session_id for row in rows],
        "vehicle_ids": [row.session.vehicle_id for row in rows],
        "meter_ids": [row.session.meter_id for row in rows],
        "started": [row.session.started_at for row in rows],
        "ended": [row.session.ended_at for row in rows],
    }


async def _connect(settings: Settings) -> AsyncConnection[tuple[Any, ...]]:
    try:
        return await db.writer_connection(db.require_url(settings), "import")
    except psycopg.OperationalError as error:
        raise no_answer(error) from None

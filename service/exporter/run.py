"""One export: part by part of the window, in one snapshot of the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

from service import db
from service.errors import NO_SCHEMA, ExportError, first_line, no_answer, no_schema
from service.exporter.datasets import DATASETS, Dataset
from service.exporter.formats import Format, Writer, copy_statement, writer
from service.exporter.target import open_target
from service.settings import Settings
from service.sql import query

# What is handed to a writer at once.
_BLOCK_BYTES: Final = 4 * 1024 * 1024

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_FOR_EVER: Final = datetime.max.replace(tzinfo=UTC)
# Called now and then with the rows and the bytes written so far, and the share of the parts that are done.
OnProgress = Callable[[int, int, float], None]
Part = tuple[datetime | None, datetime | None]


class ExportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to export, and where to. The window is half-open; None is as far as there are data."""

    what: str
    path: Path
    form: Format
    window_from: datetime | None = None
    window_to: datetime | None = None
    devices: tuple[str, ...] = ()


class ExportReport(msgspec.Struct, frozen=True):
    """What became of an export."""

    rows: int
    bytes_written: int


def export(options: ExportOptions, settings: Settings, on_progress: OnProgress | None = None) -> ExportReport:
    """Write what is asked for, all of it as it was at one moment.

    Parts are read in the order of time, each sorted by the database: memory here does not grow with them.
    Raises ExportError for a target that cannot be written, DatabaseUnavailableError for a database that is
    away.
    """
    dataset = DATASETS[options.what]
    try:
        with (
            psycopg.connect(
                db.require_url(settings),
                application_name="fleetwatt export",
                options="-c timezone=UTC -c datestyle=ISO -c extra_float_digits=1 -c statement_timeout=0",
                connect_timeout=5,
            ) as connection,
            open_target(options.path) as (counted, target),
        ):
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            parts = list(_parts(connection, dataset, options))
            about = {"dataset": options.what, **_words(options)}
            out = writer(options.form, dataset, target, about)
            rows = 0
            for done, part in enumerate(parts):
                for more in _copy(connection, dataset, options, part, out):
                    rows += more
                    if on_progress is not None:
                        on_progress(rows, counted.count, done / len(parts))
            out.close()
    except NO_SCHEMA:
        raise no_schema() from None
    except psycopg.errors.SerializationFailure as error:
        # It reads one snapshot and changes nothing: only a replica's recovery can be in its way.
        raise ExportError(
            f"the replica ended the export to go on with its recovery ({first_line(error)}): export from the "
            "primary, or set max_standby_streaming_delay = -1 on the replica meanwhile"
        ) from None
    except psycopg.OperationalError as error:
        raise no_answer(error) from None
    return ExportReport(rows, counted.count)


def _copy(
    connection: psycopg.Connection[Any],
    dataset: Dataset,
    options: ExportOptions,
    part: Part,
    out: Writer,
) -> Iterator[int]:
    """Write one part, block by block; give the rows of each."""
    parameters = {
        "window_from": part[0],
        "window_to": part[1],
        "ids": list(options.devices) or None,
    }
    statement = copy_statement(dataset, options.form)
    block, rows = bytearray(), 0
    with connection.cursor() as cursor, cursor.copy(statement, parameters) as lines:
        for line in lines:
            block += line
            rows += 1
            if len(block) >= _BLOCK_BYTES:
                out.write(bytes(block))
                yield rows
                block, rows = bytearray(), 0
    if block:
        out.write(bytes(block))
    yield rows


def _parts(connection: psycopg.Connection[Any], dataset: Dataset, options: ExportOptions) -> Iterator[Part]:
    """Cut what there is of the window into parts; whole days (UTC), but at its ends."""
    start, end = options.window_from, options.window_to
    if dataset.bin_ is not None:
        start, end = (edge and _next_bin(edge, dataset.bin_) for edge in (start, end))
    if start is not None and end is not None and start >= end:
        return
    if not dataset.relations:
        yield start, end
        return
    spans = connection.execute(
        query("export_spans"),
        {"window_from": start, "window_to": end, "relations": list(dataset.relations)},
    ).fetchall()
    until, latest = start, end or _FOR_EVER
    for span_from, span_to in spans:
        # A chunk may begin within a bin, which is then read whole, and no bin is read twice.
        moment = span_from - (span_from - _EPOCH) % dataset.bin_ if dataset.bin_ else span_from
        moment = max(moment, until) if until is not None else moment
        while moment < span_to:
            last = min(_next_bin(moment + timedelta(microseconds=1), dataset.part), latest)
            yield moment, last
            moment = until = last


def _next_bin(moment: datetime, width: timedelta) -> datetime:
    """Give the first hour or day (UTC, by the width) that starts at a moment or after it."""
    past = (moment - _EPOCH) % width
    return moment if not past else moment - past + width


def _words(options: ExportOptions) -> dict[str, str]:
    return {
        name: moment.isoformat()
        for name, moment in (("from", options.window_from), ("to", options.window_to))
        if moment is not None
    }

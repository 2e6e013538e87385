"""One import: a file, block by block, through the writer that HTTP and MQTT use.

Nothing marks how far an import came. To resume is to import the file again: what is stored already
counts as duplicates, and a file is read far faster than a bookmark could be trusted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
import psycopg

from service import db
from service.errors import NO_SCHEMA, ImportFileError, no_answer, no_schema
from service.importer.mapping import Mapping, RowReader
from service.importer.refusal import Refusal
from service.importer.report import ImportReport, OnRejected, RejectedLine
from service.importer.source import Block, Source, open_source
from service.importer.table import BLOCK_LINES, read_table
from service.ingest.decode import decode_lines
from service.ingest.outcome import Decoded, Outcome, Rejection
from service.ingest.pipeline import Pipeline
from service.readings import Reading, TimeRule
from service.settings import Settings

# Enough for both writers to have a full transaction each while the next blocks are decoded.
_IN_FLIGHT: Final = 6

Submit = Callable[[Decoded, str], Awaitable[Outcome]]
# Called after each block with the bytes of the file read so far, and its size if it has one.
OnProgress = Callable[[int, int | None], None]


class ImportOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to import and how to read it; None is found out from the file."""

    path: Path
    mapping: Mapping = Mapping()
    format: Literal["csv", "ndjson"] | None = None
    delimiter: str | None = None
    encoding: str = "utf-8"
    dry_run: bool = False


class _Batch(NamedTuple):
    block: Block
    decoded: Decoded
    bytes_read: int


async def import_file(
    options: ImportOptions,
    settings: Settings,
    on_progress: OnProgress | None = None,
    on_rejected: OnRejected | None = None,
) -> ImportReport:
    """Import a file; a dry run reads and checks it without a database.

    `on_rejected` gets each refused line in the order of the file. Raises ImportFileError when the file
    cannot be read (on): what came before is stored, and importing it again is safe.
    """
    rule = TimeRule.of(settings)
    if options.dry_run:
        return await import_through(_store_nothing, options, rule, on_progress, on_rejected)
    await _check_database(settings)
    async with Pipeline(settings, "import") as pipeline:
        return await import_through(pipeline.submit, options, rule, on_progress, on_rejected)


async def import_through(
    submit: Submit,
    options: ImportOptions,
    rule: TimeRule,
    on_progress: OnProgress | None = None,
    on_rejected: OnRejected | None = None,
) -> ImportReport:
    """Import a file through any `submit`: blocks are handed over in order, several at a time."""
    report = ImportReport(dry_run=options.dry_run)
    flight = _InFlight(report, on_rejected)
    try:
        with open_source(options.path) as source:
            batches = _batches(source, options, rule)
            # In a thread, so that the writers go on while a block is read and decoded.
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                numbers = batch.block.numbers
                origin = f"import:{source.name}:{numbers[0]}-{numbers[-1]}"
                await flight.add(batch, asyncio.ensure_future(submit(batch.decoded, origin)))
                if on_progress is not None:
                    on_progress(batch.bytes_read, source.size_bytes)
        await flight.land()
    except ImportFileError as error:
        # Broken in the middle: what was handed over is still committed and counted.
        await flight.land()
        if report.lines == 0:
            raise
        raise ImportFileError(f"{error} (until there: {report.summary()})") from error
    finally:
        await flight.abandon()
    return report


class _InFlight:
    """Blocks on their way to the commit, counted in the order of the file."""

    def __init__(self, report: ImportReport, on_rejected: OnRejected | None) -> None:
        self._report = report
        self._on_rejected = on_rejected
        self._waiting: deque[tuple[_Batch, asyncio.Future[Outcome]]] = deque()

    async def add(self, batch: _Batch, outcome: asyncio.Future[Outcome]) -> None:
        """Add a block that was handed over; wait for the oldest when too many are under way."""
        self._waiting.append((batch, outcome))
        await self.land(_IN_FLIGHT - 1)

    async def land(self, keep: int = 0) -> None:
        """Wait for commits until at most `keep` blocks are under way."""
        while len(self._waiting) > keep:
            batch, outcome = self._waiting.popleft()
            _count(self._report, batch, await _committed(batch.block, outcome), self._on_rejected)

    async def abandon(self) -> None:
        """Wait no longer for what is under way; the writer may still commit it."""
        for _, outcome in self._waiting:
            outcome.cancel()
        await asyncio.gather(*(outcome for _, outcome in self._waiting), return_exceptions=True)


def _batches(source: Source, options: ImportOptions, rule: TimeRule) -> Iterator[_Batch]:
    """Read, cut and decode the file, block by block."""
    if _format(options) == "ndjson":
        if options.mapping.given or options.delimiter is not None:
            given = ", ".join(options.mapping.given) or "--delimiter"
            raise ImportFileError(f"NDJSON lines name their own fields: {given} does not apply")
        for block in source.blocks(BLOCK_LINES):
            yield _Batch(block, decode_lines(block.body, rule, max_readings=BLOCK_LINES), source.bytes_read)
        return
    options.mapping.check()
    table = read_table(source, options.delimiter, options.encoding)
    reader = RowReader(options.mapping, table.header)
    for block, rows in table.blocks:
        yield _Batch(block, _decoded(block, reader, reader.read(rows, rule)), source.bytes_read)


def _format(options: ImportOptions) -> Literal["csv", "ndjson"]:
    name = options.path.name.lower().removesuffix(".gz")
    return options.format or ("ndjson" if name.endswith((".ndjson", ".jsonl")) else "csv")


def _decoded(block: Block, reader: RowReader, results: list[Reading | Refusal]) -> Decoded:
    """Make what the writer takes: places are those of the lines in the body, which holds no blank ones."""
    decoded = Decoded(body=block.body, readings=[], indices=[], rejections=[], lines=True)
    for index, result in enumerate(results):
        if not isinstance(result, Refusal):
            decoded.readings.append(result)
            decoded.indices.append(index)
            continue
        decoded.rejections.append(
            Rejection(
                index=index,
                code=result.code,
                message=result.message,
                field=result.field,
                kind=reader.kind,
                device_id=result.device_id,
                raw=block.lines[index],
            )
        )
    return decoded


async def _committed(block: Block, outcome: asyncio.Future[Outcome]) -> Outcome:
    try:
        return await outcome
    except NO_SCHEMA:
        raise no_schema() from None
    except psycopg.Error as error:
        where = f"lines {block.numbers[0]} to {block.numbers[-1]}"
        raise ImportFileError(f"the database refused {where} (SQLSTATE {error.sqlstate}): {error}") from error


def _count(report: ImportReport, batch: _Batch, outcome: Outcome, on_rejected: OnRejected | None) -> None:
    """Add one block to the report, its refused lines by number."""
    report.lines += len(batch.block.lines)
    report.accepted += outcome.accepted
    report.duplicates += outcome.duplicates
    report.known += outcome.known
    report.devices.update(reading.device_id for reading in batch.decoded.readings)
    refused = [*batch.decoded.rejections, *outcome.rejections]
    for one in sorted(refused, key=lambda rejection: rejection.index):
        line = RejectedLine(batch.block.numbers[one.index], one.field, one.code, one.message, one.raw)
        report.reject(line)
        if on_rejected is not None:
            on_rejected(line)


async def _store_nothing(decoded: Decoded, origin: str) -> Outcome:  # noqa: ARG001 - the shape of submit
    return Outcome(accepted=len(decoded.readings), duplicates=0, rejections=[])


async def _check_database(settings: Settings) -> None:
    """Fail now where the pipeline, made for a service that outlives its database, would wait for ever."""
    try:
        connection = await db.writer_connection(db.require_url(settings))
    except psycopg.OperationalError as error:
        raise no_answer(error) from None
    await connection.close()

"""A writer: one database connection that takes batches from the buffer and commits them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

import psycopg

from service import db, log, metrics
from service.errors import AtomicRefusedError, blames_data, is_too_large, is_transient
from service.ingest import transaction
from service.ingest.buffer import Buffer, Submission
from service.ingest.refusals import failure
from service.ingest.transaction import Connection, Entry, Failed, Written
from service.settings import Settings

# After a unique violation, how many batches go the INSERT way before COPY is tried again: a stream of
# repeats (a replay, a second import) would otherwise pay for a failed COPY each time.
_BATCHES_AFTER_VIOLATION = 20
_TRIES_OF_UNKNOWN = 5


class Writer:
    """One database connection that takes batches from the buffer and commits them, whatever it takes."""

    def __init__(self, settings: Settings, name: str, report: Callable[[str, bool], None]) -> None:
        self._settings = settings
        self._url = db.require_url(settings)
        self._name = name
        self._report = report
        self._connection: Connection | None = None
        self._insert_first = 0
        self._log = log.get("writer")

    async def run(self, buffer: Buffer, at_least: int) -> None:
        """Write batches until the buffer is closed and empty.

        It takes a batch when `at_least` readings wait, or when some have waited for a while.
        """
        try:
            while batch := await buffer.take(at_least):
                for part in _split_atomic(batch):
                    await self._commit(part)
                    buffer.release(part)
        finally:
            if self._connection is not None:
                await self._connection.close()

    async def _commit(self, batch: list[Submission]) -> None:
        """Write a batch and tell its senders; a reading that the database refuses sinks nothing else."""
        try:
            written, failed = await self._write(batch)
            outcomes = transaction.outcomes(batch, written, failed)
        except AtomicRefusedError as error:
            batch[0].fail(error)
        except Exception as error:  # noqa: BLE001 - see below
            # A defect of ours must not stop the stream: the senders learn of it, the writer goes on.
            self._log.exception("batch_failed", submissions=len(batch))
            for submission in batch:
                submission.fail(error)
        else:
            for submission, outcome in zip(batch, outcomes, strict=True):
                submission.resolve(outcome)

    async def _write(self, batch: list[Submission]) -> tuple[list[Written], list[Failed]]:
        entries = transaction.entries_of(batch)
        pieces = transaction.pieces(entries)
        if len(pieces) == 1:
            try:
                return await self._persist(batch, entries, []), []
            except psycopg.Error as error:
                if not entries or not _can_be_isolated(error):
                    raise
                if batch[0].atomic:
                    raise AtomicRefusedError([], "the database refused the readings") from error
                self._log.warning("batch_refused", sqlstate=error.sqlstate, readings=len(entries))
        failed: list[Failed] = []
        written: list[Written] = []
        for piece in pieces:
            written += await self._isolate(piece, failed)
        await self._persist(batch, [], failed)
        return written, failed

    async def _isolate(self, entries: list[Entry], failed: list[Failed]) -> list[Written]:
        """Store entries, halving what is refused until the readings to blame stand alone."""
        try:
            return await self._persist([], entries, [])
        except psycopg.Error as error:
            if not _can_be_isolated(error):
                raise
            if len(entries) == 1:
                [entry] = entries
                failed.append(Failed(entry, failure(entry.submission.decoded, entry.place, error)))
                return []
        middle = len(entries) // 2
        return [
            *await self._isolate(entries[:middle], failed),
            *await self._isolate(entries[middle:], failed),
        ]

    async def _persist(
        self, batch: list[Submission], entries: list[Entry], failed: list[Failed]
    ) -> list[Written]:
        """Run the transaction until it commits or is refused for good; pauses grow, with jitter.

        An error that neither blames the data nor is known to pass is most likely a defect: after a few tries
        it is raised, so that it does not hold up the stream. Nothing is acknowledged then.
        """
        pause_s = 0.05
        tries = 0
        while True:
            tries += 1
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = await db.writer_connection(self._url)
                straight = self._insert_first == 0
                with metrics.COMMIT_SECONDS.time():
                    written, straight_open = await transaction.store(
                        self._connection, batch, entries, failed, self._name, straight=straight
                    )
                metrics.BATCH_READINGS.observe(len(entries))
            except AtomicRefusedError:
                self._report(self._name, True)
                raise
            except (psycopg.Error, OSError) as error:
                isolate = blames_data(error) or (len(entries) > 1 and is_too_large(error))
                if isolate or (not is_transient(error) and tries >= _TRIES_OF_UNKNOWN):
                    self._report(self._name, True)
                    raise
                self._report(self._name, False)
                metrics.TRANSIENT_ERRORS.inc()
                self._log.warning(
                    "database_away",
                    error=type(error).__name__,
                    sqlstate=getattr(error, "sqlstate", None),
                    detail=str(error).splitlines()[:1],
                    pause_s=round(pause_s, 2),
                )
                await self._discard_connection()
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, self._settings.retry_max_s)
                continue
            self._report(self._name, True)
            if straight and not straight_open:
                self._insert_first = _BATCHES_AFTER_VIOLATION
            elif self._insert_first:
                self._insert_first -= 1
            for part in written:
                metrics.READINGS.labels(part.stream.kind, "stored").inc(len(part.stored))
                metrics.READINGS.labels(part.stream.kind, "duplicate").inc(len(part.duplicates))
                metrics.READINGS.labels(part.stream.kind, "conflict").inc(len(part.conflicts))
            return written

    async def _discard_connection(self) -> None:
        """Drop a connection in doubt: the transaction on it is rolled back or was committed, never half."""
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                await self._connection.close()
            self._connection = None


def _can_be_isolated(error: psycopg.Error) -> bool:
    """Tell whether taking a batch apart can find readings to blame, or parts that fit."""
    return blames_data(error) or is_too_large(error)


def _split_atomic(batch: list[Submission]) -> list[list[Submission]]:
    """Keep the order, and give each all-or-nothing submission a transaction of its own."""
    parts: list[list[Submission]] = []
    for submission in batch:
        if submission.atomic or not parts or parts[-1][0].atomic:
            parts.append([submission])
        else:
            parts[-1].append(submission)
    return parts

"""The one way in: submit a payload, get back what its commit did. HTTP, MQTT and the importer use it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import psycopg

from service import db, log, metrics
from service.errors import AtomicRefusedError, DatabaseUnavailableError, is_transient
from service.ingest import transaction
from service.ingest.buffer import Buffer, Submission
from service.ingest.outcome import Decoded, Outcome
from service.ingest.refusals import failure
from service.ingest.transaction import Connection, Entry, Failed, Written
from service.settings import Settings

# After a unique violation, how many batches go the INSERT way before COPY is tried again: a stream of
# repeats (a replay, a second import) would otherwise pay for a failed COPY each time.
_BATCHES_AFTER_VIOLATION = 20


class Pipeline:
    """A buffer and its writers, as an async context manager that drains on exit.

    `name` tells this process from others in the ingest counters.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._writers: list[asyncio.Task[None]] = []
        self.buffer = Buffer(
            max_readings=settings.buffer_max_readings,
            max_bytes=settings.buffer_max_bytes,
            batch_max=settings.batch_max_readings,
        )
        self.available = True
        self._log = log.get("pipeline")

    async def __aenter__(self) -> Self:
        """Start the writers; they connect when the first batch comes."""
        for number in range(self._settings.writers):
            # The first writer takes whatever there is; each further one only helps with a real backlog.
            threshold = 1 if number == 0 else self._settings.batch_max_readings // 4
            writer = Writer(self._settings, f"{self._name}/{number}", self._set_available)
            self._writers.append(asyncio.create_task(writer.run(self.buffer, threshold)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Refuse new submissions, write what is inside, stop.

        When the database is away what is inside cannot be written: it is given up after a while. None of it
        was acknowledged, so its senders have it still.
        """
        self.buffer.close()
        try:
            await asyncio.wait(self._writers, timeout=self._settings.drain_timeout_s)
        finally:
            if self.buffer.readings:
                self._log.warning("given_up_unacknowledged", readings=self.buffer.readings)
            for task in self._writers:
                task.cancel()
            for task in self._writers:
                with suppress(asyncio.CancelledError):
                    await task

    async def submit(
        self,
        decoded: Decoded,
        origin: str,
        *,
        atomic: bool = False,
        room_wait_s: float | None = None,
        commit_wait_s: float | None = None,
    ) -> Outcome:
        """Hand in a payload and wait for its commit.

        Raises BufferFullError when there is no room in `room_wait_s`; DatabaseUnavailableError when the
        commit does not come in `commit_wait_s` (it may still come later: sending again is safe, since
        what was stored counts as a duplicate); AtomicRefusedError when all-or-nothing gave nothing.
        """
        for rejection in decoded.rejections:
            metrics.REJECTED.labels(origin.partition(":")[0], rejection.code).inc()
        submission = Submission(
            decoded, origin, atomic=atomic, raw_limit=self._settings.dead_letter_max_bytes
        )
        await self.buffer.put(submission, wait_s=room_wait_s)
        done, _ = await asyncio.wait([submission.committed], timeout=commit_wait_s)
        if not done:
            submission.committed.cancel()
            raise DatabaseUnavailableError("the database did not confirm in time; send again")
        return submission.committed.result()

    def _set_available(self, available: bool) -> None:
        self.available = available


class Writer:
    """One database connection that takes batches from the buffer and commits them, whatever it takes."""

    def __init__(self, settings: Settings, name: str, report: Callable[[bool], None]) -> None:
        self._settings = settings
        self._url = db.require_url(settings)
        self._name = name
        self._report = report
        self._connection: Connection | None = None
        self._insert_first = 0
        self._log = log.get("writer")

    async def run(self, buffer: Buffer, at_least: int) -> None:
        """Write batches of at least that many readings until the buffer is closed and empty."""
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
        except AtomicRefusedError as error:
            batch[0].fail(error)
        except Exception as error:  # noqa: BLE001 - see below
            # A defect of ours must not stop the stream: the senders learn of it, the writer goes on.
            self._log.exception("batch_failed", submissions=len(batch))
            for submission in batch:
                submission.fail(error)
        else:
            for submission, outcome in zip(batch, transaction.outcomes(batch, written, failed), strict=True):
                submission.resolve(outcome)

    async def _write(self, batch: list[Submission]) -> tuple[list[Written], list[Failed]]:
        entries = transaction.entries_of(batch)
        try:
            return await self._persist(batch, entries, []), []
        except psycopg.Error as error:
            if batch[0].atomic:
                raise AtomicRefusedError([]) from error
            if not entries:
                raise
            self._log.warning("batch_refused", sqlstate=error.sqlstate, readings=len(entries))
        failed: list[Failed] = []
        written = await self._isolate(entries, failed)
        await self._persist(batch, [], failed)
        return written, failed

    async def _isolate(self, entries: list[Entry], failed: list[Failed]) -> list[Written]:
        """Halve a refused batch until the readings to blame stand alone; all others are stored."""
        written: list[Written] = []
        middle = len(entries) // 2
        for half in (entries[:middle], entries[middle:]):
            try:
                written += await self._persist([], half, [])
            except psycopg.Error as error:
                if len(half) == 1:
                    [entry] = half
                    failed.append(Failed(entry, failure(entry.submission.decoded, entry.place, error)))
                else:
                    written += await self._isolate(half, failed)
        return written

    async def _persist(
        self, batch: list[Submission], entries: list[Entry], failed: list[Failed]
    ) -> list[Written]:
        """Run the transaction until it commits or is refused for good; pauses grow, with jitter."""
        pause_s = 0.05
        while True:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = await db.writer_connection(self._url)
                straight = self._insert_first == 0
                with metrics.COMMIT_SECONDS.time():
                    written, straight_open = await transaction.store(
                        self._connection, batch, entries, failed, self._name, straight=straight
                    )
                metrics.BATCH_READINGS.observe(len(entries))
            except (psycopg.Error, OSError) as error:
                if not is_transient(error):
                    raise
                self._report(False)
                metrics.TRANSIENT_ERRORS.inc()
                self._log.warning("database_away", error=type(error).__name__, pause_s=round(pause_s, 2))
                await self._discard_connection()
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, self._settings.retry_max_s)
                continue
            self._report(True)
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


def _split_atomic(batch: list[Submission]) -> list[list[Submission]]:
    """Keep the order, and give each all-or-nothing submission a transaction of its own."""
    parts: list[list[Submission]] = []
    for submission in batch:
        if submission.atomic or not parts or parts[-1][0].atomic:
            parts.append([submission])
        else:
            parts[-1].append(submission)
    return parts

"""A writer: one database connection that takes batches from the buffer and commits them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import psycopg

from service import db, log, metrics, tallies, tracing
from service.errors import AtomicRefusedError, blames_data, is_too_large, is_transient
from service.ingest import transaction
from service.ingest.batch import Batch
from service.ingest.breaker import Breaker
from service.ingest.buffer import Buffer, Submission
from service.ingest.refusals import failure
from service.ingest.transaction import Connection, Failed, KeysStoredError, Written
from service.readings import Kind
from service.settings import Settings

if TYPE_CHECKING:
    from service.otel import Traces

# After a unique violation, how many batches go the careful way before the straight one is tried again, or
# until one of them holds nothing but new readings: a stream of repeats (a replay, a second import) would
# otherwise pay for a failed COPY each time.
_BATCHES_AFTER_VIOLATION: Final = 20
_TRIES_OF_UNKNOWN: Final = 5
_PAUSE_OF_UNKNOWN_S: Final = 0.1
# So many refusals in a row, and nothing stored between them, are not the fault of single readings.
_REFUSALS_MAX: Final = 50
_KINDS: Final[tuple[Kind, ...]] = ("meter", "vehicle")
# Found once, since finding a counter by its labels takes longer than counting.
_RESULTS: Final = {
    kind: [metrics.READINGS.labels(kind, result) for result in ("stored", "duplicate", "conflict")]
    for kind in _KINDS
}


class Writer:
    """One database connection that takes batches from the buffer and commits them, whatever it takes."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        breaker: Breaker,
        traces: Traces | None = None,
        committed: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._url = db.require_url(settings)
        self._name = name
        self._breaker = breaker
        self._traces = traces
        self._committed = committed
        self._connection: Connection | None = None
        # For how many batches the straight way is not tried.
        self._careful = 0
        self._log = log.get("writer")

    async def run(self, buffer: Buffer, at_least: int) -> None:
        """Write batches until the buffer is closed and empty.

        It takes a batch when `at_least` readings wait, or when some have waited for a while.
        """
        try:
            while batch := await buffer.take(at_least):
                for part in _split_atomic(batch):
                    await self._commit(Batch(part))
                    buffer.release(part)
        finally:
            if self._connection is not None:
                await self._connection.close()

    async def _commit(self, batch: Batch) -> None:
        """Write a batch and tell its senders; a reading that the database refuses sinks nothing else."""
        try:
            with self._traced(batch):
                written, failed = await self._write(batch)
            outcomes = transaction.outcomes(batch, written, failed)
        except AtomicRefusedError as error:
            metrics.GIVEN_BACK.labels("atomic_refused").inc(len(batch.readings))
            batch.submissions[0].fail(error)
        except Exception as error:  # noqa: BLE001 - see below
            # A defect of ours must not stop the stream: the senders learn of it, the writer goes on.
            self._log.exception("batch_failed", submissions=len(batch.submissions))
            metrics.GIVEN_BACK.labels("failed").inc(len(batch.readings))
            for submission in batch.submissions:
                submission.fail(error)
        else:
            for submission, outcome in zip(batch.submissions, outcomes, strict=True):
                submission.resolve(outcome)

    def _traced(self, batch: Batch) -> AbstractContextManager[None]:
        if self._traces is None:
            return nullcontext()
        return self._traces.commit([each.span for each in batch.submissions], len(batch.readings))

    async def _write(self, batch: Batch) -> tuple[list[Written], list[Failed]]:
        pieces = batch.pieces()
        if len(pieces) == 1:
            atomic = batch.submissions[0].atomic
            try:
                return await self._persist(batch, pieces[0], letters=[]), []
            except psycopg.Error as error:
                self._note_refused(error, len(batch.readings))
                if not batch.readings or (atomic and not _can_be_isolated(error)):
                    raise
                if atomic:
                    raise AtomicRefusedError([], "the database refused the readings") from error
        isolation = _Isolation(batch)
        for piece in pieces:
            await self._isolate(piece, isolation)
        isolation.check()
        await self._persist(batch, [], letters=[*isolation.conflicts, *isolation.failed])
        for failed in isolation.failed:
            metrics.READINGS.labels(failed.rejection.kind, "refused").inc()
        return isolation.written, isolation.failed

    async def _isolate(self, places: Sequence[int], isolation: _Isolation) -> None:
        """Store readings, halving what is refused until those to blame stand alone."""
        try:
            isolation.stored(await self._persist(isolation.batch, places, tries_of_unknown=1), len(places))
        except psycopg.Error as error:
            if len(places) == 1:
                isolation.refused(places[0], error)
                return
        else:
            return
        middle = len(places) // 2
        await self._isolate(places[:middle], isolation)
        await self._isolate(places[middle:], isolation)

    async def _persist(
        self,
        batch: Batch,
        places: Sequence[int],
        *,
        letters: Sequence[Failed] | None = None,
        tries_of_unknown: int = _TRIES_OF_UNKNOWN,
    ) -> list[Written]:
        """Run the transaction until it commits or is refused for good; the breaker makes the pauses.

        An error that neither blames the data nor is known to pass is most likely a defect: after a few tries
        it is raised, so that it does not hold up the stream.
        """
        unknown = 0
        while True:
            try:
                async with self._breaker.attempt():
                    written = await self._try(batch, places, letters)
            except (psycopg.Error, OSError) as error:
                if blames_data(error) or (len(places) > 1 and is_too_large(error)):
                    raise
                if not is_transient(error):
                    unknown += 1
                    if unknown >= tries_of_unknown:
                        raise
                    await asyncio.sleep(_PAUSE_OF_UNKNOWN_S * unknown * random.uniform(0.5, 1.0))
                self._note_passing(error)
                await self._discard_connection()
                continue
            metrics.BATCH_READINGS.observe(len(places))
            for part in written:
                stored, duplicate, conflict = _RESULTS[part.kind]
                stored.inc(part.stored)
                duplicate.inc(len(part.duplicates))
                conflict.inc(len(part.conflicts))
                tallies.LAG[part.kind].add_all(part.lags.each_s)
            if self._committed is not None:
                self._committed()
            return written

    async def _try(
        self, batch: Batch, places: Sequence[int], letters: Sequence[Failed] | None
    ) -> list[Written]:
        """Run the transaction once, on a new connection if need be; carefully if the straight way is closed.

        Raises TimeoutError when a server that is frozen or cut off does not answer: the connection alone
        would not tell.
        """
        async with asyncio.timeout(self._settings.write_timeout_s):
            if self._connection is None or self._connection.closed:
                self._connection = await db.writer_connection(self._url)
            store = partial(transaction.store, self._connection, batch, places, letters, self._name)
            with metrics.COMMIT_SECONDS.time():
                if not self._careful:
                    try:
                        return await store(straight=True)
                    except KeysStoredError:
                        self._careful = _BATCHES_AFTER_VIOLATION
                written = await store(straight=False)
                all_new = not any(part.duplicates or part.conflicts for part in written)
                self._careful = 0 if all_new else self._careful - 1
                return written

    def _note_passing(self, error: psycopg.Error | OSError) -> None:
        metrics.TRANSIENT_ERRORS.labels(_sqlstate_class(error)).inc()
        tracing.note("try_again", error=type(error).__name__, sqlstate_class=_sqlstate_class(error))
        self._log.warning(
            "database_away",
            error=type(error).__name__,
            sqlstate=getattr(error, "sqlstate", None),
            detail=str(error).splitlines()[:1],
            breaker=self._breaker.state.word,
        )

    def _note_refused(self, error: psycopg.Error, readings: int) -> None:
        metrics.PERMANENT_ERRORS.labels(_sqlstate_class(error)).inc()
        self._log.warning("batch_refused", sqlstate=error.sqlstate, readings=readings)

    def hang_up(self) -> None:
        """End what is under way at once, also with a server that is frozen."""
        if self._connection is not None:
            db.hang_up(self._connection)

    async def _discard_connection(self) -> None:
        """Drop a connection in doubt: the transaction on it is rolled back or was committed, never half."""
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                await self._connection.close()
            self._connection = None


class _Isolation:
    """What came of taking a batch apart: what was stored, and the readings to blame."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.written: list[Written] = []
        self.failed: list[Failed] = []
        self._readings_stored = 0
        self._defect: psycopg.Error | None = None

    def stored(self, written: list[Written], readings: int) -> None:
        """Note a part that the database took."""
        self.written += written
        self._readings_stored += readings

    @property
    def conflicts(self) -> list[Failed]:
        """The conflicts in what was stored, of which there are no letters yet."""
        return [conflict for part in self.written for conflict in part.conflicts]

    def refused(self, place: int, error: psycopg.Error) -> None:
        """Note a reading that the database does not take alone either.

        Raises the error when it does not blame the data and nothing else gets through: then it is not the
        fault of this reading.
        """
        if not blames_data(error):
            self._defect = error
            if not self._readings_stored and len(self.failed) >= _REFUSALS_MAX:
                raise error
        submission, within = self.batch.origin(place)
        self.failed.append(Failed(submission, failure(submission.decoded, within, error)))

    def check(self) -> None:
        """Raise the error that is nobody's fault, if all met it: nothing is acknowledged then."""
        if self._defect is not None and not self._readings_stored:
            raise self._defect


def _can_be_isolated(error: psycopg.Error) -> bool:
    """Tell whether taking a batch apart can find readings to blame, or parts that fit."""
    return blames_data(error) or is_too_large(error)


def _sqlstate_class(error: BaseException) -> str:
    sqlstate = getattr(error, "sqlstate", None)
    return sqlstate[:2] if sqlstate else "none"


def _split_atomic(batch: list[Submission]) -> list[list[Submission]]:
    """Keep the order, and give each all-or-nothing submission a transaction of its own."""
    parts: list[list[Submission]] = []
    for submission in batch:
        if submission.atomic or not parts or parts[-1][0].atomic:
            parts.append([submission])
        else:
            parts[-1].append(submission)
    return parts

"""The bounded buffer between intake and writers.

It flushes by itself: an idle writer takes whatever waits, so a quiet system commits at once, and while
a commit runs the next batch grows. Further writers join only when much is waiting, because two small
transactions cost more than one large one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from service import metrics
from service.errors import BufferFullError
from service.ingest.outcome import Decoded, Outcome, Rejection
from service.tracing import CURRENT

_PATIENCE_S = 0.5


class Submission:
    """One payload on its way to the database, and the future that its commit resolves.

    `atomic` asks for all or nothing. `origin` is where it came from and `raw_limit` how many bytes of a
    refused reading are kept, both for dead letters; without `keep_refused` (a replay of dead letters)
    there are none. `known` counts refusals that were dead letters before: lines of a file imported again.
    """

    __slots__ = (
        "atomic",
        "committed",
        "decoded",
        "entered_at",
        "keep_refused",
        "known",
        "origin",
        "raw_limit",
        "size",
        "span",
    )

    def __init__(
        self,
        decoded: Decoded,
        origin: str,
        *,
        atomic: bool = False,
        keep_refused: bool = True,
        raw_limit: int = 256 * 1024,
    ) -> None:
        self.decoded = decoded
        self.origin = origin
        self.atomic = atomic
        self.keep_refused = keep_refused
        self.known = 0
        self.raw_limit = raw_limit
        self.size = len(decoded.body)
        self.entered_at = time.monotonic()
        self.span = CURRENT.get()
        self.committed: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    @property
    def rejections(self) -> list[Rejection]:
        """What decoding refused; each becomes a dead letter."""
        return self.decoded.rejections

    @property
    def is_abandoned(self) -> bool:
        """Tell whether its sender was told to send again; refusals alone are worth keeping even so."""
        return self.committed.cancelled() and bool(self.decoded.readings)

    def resolve(self, outcome: Outcome) -> None:
        """Tell the sender what the commit did, unless it no longer listens."""
        if not self.committed.done():
            self.committed.set_result(outcome)

    def fail(self, error: Exception) -> None:
        """Tell the sender that nothing was stored, unless it no longer listens."""
        if not self.committed.done():
            self.committed.set_exception(error)


class Buffer:
    """A queue of submissions, bounded in readings and in bytes.

    Both bounds cover what waits and what is being written: memory is held until the commit.
    """

    def __init__(self, *, max_readings: int, max_bytes: int, batch_max: int) -> None:
        self._max_readings = max_readings
        self._max_bytes = max_bytes
        self._batch_max = batch_max
        self._waiting: deque[Submission] = deque()
        self._readings_waiting = 0
        self._takers: list[tuple[int, asyncio.Future[None]]] = []
        self._room: deque[asyncio.Future[None]] = deque()
        self.readings = 0
        self.bytes = 0
        self.closed = False

    def has_room(self) -> bool:
        """Tell whether another submission may enter; one of any size may enter an empty buffer."""
        return not self.closed and self.readings < self._max_readings and self.bytes < self._max_bytes

    async def put(self, submission: Submission, *, wait_s: float | None = None) -> None:
        """Add a submission; wait for room at most `wait_s` seconds (None: as long as it takes).

        Raises BufferFullError when there is no room in time, or when the buffer has been closed.
        """
        while not self.closed and not self.has_room():
            if wait_s == 0:
                raise BufferFullError("the buffer is full")
            waiter = asyncio.get_running_loop().create_future()
            self._room.append(waiter)
            try:
                async with asyncio.timeout(wait_s):
                    await waiter
            except TimeoutError:
                raise BufferFullError("the buffer is full") from None
        if self.closed:
            raise BufferFullError("the service is stopping")
        self.add(submission)

    def add(self, submission: Submission) -> None:
        """Add a submission for which there is room."""
        weight = self._weight(submission)
        self._waiting.append(submission)
        self._readings_waiting += weight
        self.readings += weight
        self.bytes += submission.size
        self._wake_takers()

    async def take(self, at_least: int = 1) -> list[Submission]:
        """Give the next batch once `at_least` readings wait; an empty list once closed and empty.

        A taker that wants many takes fewer when they have waited long: whoever should have is busy.
        The batch is cut at the batch limit, but a submission is never split: one may exceed it alone.
        """
        while True:
            await self._until_ready(at_least)
            if batch := self._cut_batch():
                return batch
            if self.closed and not self._waiting:
                return []

    async def _until_ready(self, at_least: int) -> None:
        while not self.closed and not self._ready(at_least):
            taker = asyncio.get_running_loop().create_future()
            self._takers.append((at_least, taker))
            try:
                async with asyncio.timeout(_PATIENCE_S if at_least > 1 else None):
                    await taker
            except TimeoutError:
                if self._waiting and time.monotonic() - self._waiting[0].entered_at > _PATIENCE_S:
                    return

    def _cut_batch(self) -> list[Submission]:
        """Take the next batch out of the queue; what its sender gave up meanwhile is not worth writing."""
        batch: list[Submission] = []
        count = 0
        while self._waiting:
            first = self._waiting[0]
            weight = self._weight(first)
            if first.is_abandoned:
                metrics.GIVEN_BACK.labels("gave_up").inc(len(first.decoded.readings))
                self._readings_waiting -= weight
                self.release([self._waiting.popleft()])
                continue
            if batch and count + weight > self._batch_max:
                break
            batch.append(self._waiting.popleft())
            count += weight
        self._readings_waiting -= count
        return batch

    def release(self, batch: list[Submission]) -> None:
        """Free the room of submissions whose fate is decided."""
        for submission in batch:
            self.readings -= self._weight(submission)
            self.bytes -= submission.size
        if self.has_room():
            self._wake_senders()

    def close(self) -> None:
        """Refuse new submissions; what is inside is still handed out."""
        self.closed = True
        self._wake_takers()
        self._wake_senders()

    def _wake_senders(self) -> None:
        """Wake all who wait for room; each looks again, so one that gave up cannot swallow the signal."""
        while self._room:
            waiter = self._room.popleft()
            if not waiter.done():
                waiter.set_result(None)

    @staticmethod
    def _weight(submission: Submission) -> int:
        """Count a payload that holds nothing but refusals as one: it costs a row as well."""
        return len(submission.decoded.readings) + len(submission.decoded.rejections) or 1

    def _ready(self, at_least: int) -> bool:
        return bool(self._waiting) and (self.closed or self._readings_waiting >= at_least)

    def _wake_takers(self) -> None:
        if not self._takers:
            return
        asleep = []
        for at_least, taker in self._takers:
            if self.closed or self._ready(at_least):
                if not taker.done():
                    taker.set_result(None)
            else:
                asleep.append((at_least, taker))
        self._takers = asleep

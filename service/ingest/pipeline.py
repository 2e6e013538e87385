"""The one way in: submit a payload, get back what its commit did. HTTP, MQTT and the importer use it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from service import log, metrics, tallies
from service.errors import DatabaseUnavailableError
from service.ingest.breaker import Breaker, State
from service.ingest.buffer import Buffer, Submission
from service.ingest.outcome import Decoded, Outcome
from service.ingest.writer import Writer
from service.settings import Settings

if TYPE_CHECKING:
    from service.otel import Traces

# How long to wait at the end while the database is away: what it does not store was not acknowledged, and
# comes again.
_DRAIN_AWAY_S: Final = 1.0
_DRAIN_POLL_S: Final = 0.1


class Pipeline:
    """A buffer and its writers, as an async context manager that drains on exit.

    `name` tells this process from others in the ingest counters; `traces` are those of its commits;
    `committed` is called after each one that may have stored readings.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        traces: Traces | None = None,
        committed: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._name = name
        self._traces = traces
        self._committed = committed
        self._source = tallies.source(name)
        self._replay = tallies.source("replay")
        self._writers: list[Writer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.buffer = Buffer(
            max_readings=settings.buffer_max_readings,
            max_bytes=settings.buffer_max_bytes,
            batch_max=settings.batch_max_readings,
        )
        self.breaker = Breaker(
            failures=settings.breaker_failures,
            stall_s=settings.breaker_stall_s,
            pause_max_s=settings.retry_max_s,
        )
        self._log = log.get("pipeline")

    async def __aenter__(self) -> Self:
        """Start the writers; they connect when the first batch comes."""
        for number in range(self._settings.writers):
            # The first writer takes whatever there is; each further one only helps with a real backlog.
            threshold = 1 if number == 0 else self._settings.batch_max_readings // 4
            writer = Writer(
                self._settings, f"{self._name}/{number}", self.breaker, self._traces, self._committed
            )
            self._writers.append(writer)
            self._tasks.append(asyncio.create_task(writer.run(self.buffer, threshold)))
        metrics.BREAKER_STATE.set_function(lambda: self.breaker.state)
        metrics.BUFFER_READINGS.set_function(lambda: self.buffer.readings)
        metrics.BUFFER_BYTES.set_function(lambda: self.buffer.bytes)
        metrics.BUFFER_MAX_READINGS.set(self._settings.buffer_max_readings)
        metrics.BUFFER_MAX_BYTES.set(self._settings.buffer_max_bytes)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Refuse new submissions, write what is inside, stop.

        When the database is away what is inside cannot be written: it is given up after a moment. None of it
        was acknowledged, so its senders have it still.
        """
        self.buffer.close()
        try:
            await self.settle(asyncio.wait(self._tasks))
        finally:
            if self.buffer.readings:
                self._log.warning("given_up_unacknowledged", readings=self.buffer.readings)
            for writer in self._writers:
                writer.hang_up()
            # A turn for those that wait on a connection to see its end: cancelled first, they would ask a
            # frozen server to cancel and wait for its word.
            await asyncio.wait(self._tasks, timeout=_DRAIN_POLL_S)
            for task in self._tasks:
                task.cancel()
            for task in self._tasks:
                with suppress(asyncio.CancelledError):
                    await task

    async def settle(self, done: Awaitable[Any]) -> None:
        """Wait until `done`, which commits bring about, as long as the database answers and there is time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting = asyncio.ensure_future(done)
        while not waiting.done() and loop.time() - began < self._settings.drain_timeout_s:
            if not self.available and loop.time() - began > _DRAIN_AWAY_S:
                break
            await asyncio.wait([waiting], timeout=_DRAIN_POLL_S)
        waiting.cancel()

    async def submit(
        self,
        decoded: Decoded,
        origin: str,
        *,
        atomic: bool = False,
        keep_refused: bool = True,
        room_wait_s: float | None = None,
        commit_wait_s: float | None = None,
    ) -> Outcome:
        """Hand in a payload and wait for its commit.

        Raises BufferFullError when there is no room in `room_wait_s`; DatabaseUnavailableError when the
        commit does not come in `commit_wait_s` (it may still come later: sending again is safe, since
        what was stored counts as a duplicate); AtomicRefusedError when all-or-nothing gave nothing.
        """
        submission = self._submission(decoded, origin, atomic=atomic, keep_refused=keep_refused)
        await self.buffer.put(submission, wait_s=room_wait_s)
        (self._source if keep_refused else self._replay).accepted += len(decoded.readings)
        if commit_wait_s is None:
            return await submission.committed
        late = False

        def give_up() -> None:
            nonlocal late
            late = submission.committed.cancel()

        timer = asyncio.get_running_loop().call_later(commit_wait_s, give_up)
        try:
            return await submission.committed
        except asyncio.CancelledError:
            if late:
                raise DatabaseUnavailableError("the database did not confirm in time; send again") from None
            raise
        finally:
            timer.cancel()

    def submit_now(self, decoded: Decoded, origin: str) -> asyncio.Future[Outcome] | None:
        """Hand in a payload; give the future of its commit, or None where `submit` would have to wait."""
        if not self.buffer.has_room():
            return None
        submission = self._submission(decoded, origin)
        self.buffer.add(submission)
        self._source.accepted += len(decoded.readings)
        return submission.committed

    def _submission(
        self, decoded: Decoded, origin: str, *, atomic: bool = False, keep_refused: bool = True
    ) -> Submission:
        return Submission(
            decoded,
            origin,
            atomic=atomic,
            keep_refused=keep_refused,
            raw_limit=self._settings.dead_letter_max_bytes,
        )

    @property
    def available(self) -> bool:
        """Tell whether the database takes what is written, as far as the writers know."""
        return self.breaker.state is State.CLOSED

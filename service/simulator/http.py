"""Readings over HTTP, in batches: acknowledged means committed to the database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from random import uniform
from time import monotonic
from typing import Final, Self

import httpx
import msgspec

from service.errors import FleetwattError
from service.readings import Reading
from service.simulator.progress import Progress
from service.simulator.sender import FIRST_PAUSE_S, Idle, next_pause_s

_TIMEOUT_S: Final = 30.0
# Too many requests, and a server or proxy that may answer in a moment; the same request again is harmless,
# since a reading that is stored already is only counted as a duplicate.
_TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_RETRY_AFTER_S: Final = 60.0


class _Refused(msgspec.Struct):
    index: int
    message: str = ""


class _Answer(msgspec.Struct):
    accepted: int
    duplicates: int = 0
    rejected: list[_Refused] = []


class _Problem(msgspec.Struct):
    detail: str
    code: str = ""


def key_headers(api_key: str) -> dict[str, str]:
    """Give the headers by which a request shows its key; none without one."""
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


class HttpSender:
    """Posts arrays of readings to /v1/telemetry, a few requests at a time."""

    def __init__(
        self, url: str, progress: Progress, *, connections: int = 4, batch: int = 500, api_key: str = ""
    ) -> None:
        self.progress = progress
        self.batch = batch
        self._refused = ""
        self._idle = Idle()
        self._slots = asyncio.Semaphore(connections)
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=_TIMEOUT_S,
            headers=key_headers(api_key),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(_Answer).decode

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def send(self, readings: Sequence[Reading]) -> None:
        """Post readings in batches; waits only while all connections are busy.

        Raises FleetwattError once the service has told that our key is not good: it would go on like that.
        """
        for start in range(0, len(readings), self.batch):
            self._check_key()
            await self._slots.acquire()
            batch = readings[start : start + self.batch]
            self._idle.begin(len(batch))
            self.progress.sent += len(batch)
            task = asyncio.create_task(self._deliver(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until every batch is answered; False if that took too long."""
        done = await self._idle.wait(timeout_s)
        self._check_key()
        return done

    def _check_key(self) -> None:
        if self._refused:
            raise FleetwattError(f"the service refused us: {self._refused}")

    async def _deliver(self, batch: Sequence[Reading]) -> None:
        try:
            body, first_sent, pause_s = self._encode(batch), monotonic(), FIRST_PAUSE_S
            while (retry_after_s := await self._post(body, len(batch))) is not None:
                self.progress.retries += len(batch)
                # Spread out, or all clients that were refused together come back together.
                await asyncio.sleep(max(retry_after_s, uniform(pause_s / 2, pause_s)))
                pause_s = next_pause_s(pause_s)
            self.progress.latencies.add(monotonic() - first_sent, len(batch))
            self._idle.end(len(batch))
        finally:
            self._slots.release()

    async def _post(self, body: bytes, count: int) -> float | None:
        """Post one batch and count the answer; give the least pause (s) if it must be tried again."""
        try:
            response = await self._client.post(
                "/v1/telemetry", content=body, headers={"content-type": "application/json"}
            )
        except httpx.TransportError as error:
            self.progress.problem = f"service: {str(error) or type(error).__name__}"
            return 0.0
        if response.status_code in _TRY_AGAIN:
            self.progress.problem = f"service: {response.status_code} {response.reason_phrase}"
            return _retry_after_s(response)
        if response.is_success:
            try:
                answer = self._decode(response.content)
            except msgspec.MsgspecError:
                answer = _Answer(0, rejected=[_Refused(0, "an answer that is not fleetwatt's")] * count)
            self.progress.acknowledged += answer.accepted + answer.duplicates
            self.progress.duplicates += answer.duplicates
            self.progress.rejected += len(answer.rejected)
            self.progress.problem = answer.rejected[0].message if answer.rejected else ""
        else:
            self.progress.rejected += count
            problem = _problem(response)
            self.progress.problem = f"service: {response.status_code} {problem.detail}"
            if response.status_code == HTTPStatus.UNAUTHORIZED or problem.code == "not_allowed":
                self._refused = f"{problem.detail}; FLEETWATT_API_KEY holds the key that is sent"
        return None


def _problem(response: httpx.Response) -> _Problem:
    """Read problem details; of what is none, the beginning."""
    try:
        return msgspec.json.decode(response.content, type=_Problem)
    except msgspec.MsgspecError:
        return _Problem(response.text[:200])


def _retry_after_s(response: httpx.Response) -> float:
    """Read Retry-After in seconds; a date, or nonsense, counts as none."""
    try:
        return min(max(float(response.headers.get("retry-after", "0")), 0.0), _LONGEST_RETRY_AFTER_S)
    except ValueError:
        return 0.0

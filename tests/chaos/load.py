"""The load: HTTP clients that retry as they are told, MQTT publishers that send again what was not taken."""

from __future__ import annotations

import asyncio
import gzip
import random
from collections import Counter
from time import monotonic
from typing import Any, Final, Self

import httpx
import msgspec

from tests.chaos.ledger import Key, Ledger
from tests.chaos.publisher import Publisher

_RETRY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_TELLS_WHEN: Final = frozenset({429, 503})
_TIMEOUT_S: Final = 20.0
_PAUSE_MAX_S: Final = 1.0


class Client:
    """Posts batches of its own devices to one address; each again, as it is, until it is taken.

    `problems` lists the answers that a client which retries as told must never get; `causes` counts why it
    had to try again. `slowest_s` is the longest that one try took to be answered.
    """

    def __init__(self, url: str, name: str, ledger: Ledger, pause_s: float) -> None:
        self._name = name
        self._ledger = ledger
        self._pause_s = pause_s
        self._client = httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False)
        self.causes: Counter[str] = Counter()
        self.problems: list[str] = []
        self.slowest_s = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Post until `stop` is set; the batch under way is brought to its end."""
        async with self._client:
            while not stop.is_set():
                keys, query, body, headers = self._batch()
                # Now and then once more after the answer: what is stored must not be stored again.
                for _ in range(2 if random.random() < 0.05 else 1):
                    await self._deliver(keys, query, body, headers)
                await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.5))

    def _batch(self) -> tuple[list[Key], dict[str, str], bytes, dict[str, str]]:
        made = [
            self._ledger.reading(self._name, random.choice(["meter", "vehicle"]))
            for _ in range(random.choice([1, 5, 20, 60]))
        ]
        bodies = [body for _, body in made]
        headers = {"content-type": "application/json"}
        if random.random() < 0.3:
            headers["content-type"] = "application/x-ndjson"
            content = b"\n".join(msgspec.json.encode(body) for body in bodies)
        else:
            content = msgspec.json.encode(bodies)
        if random.random() < 0.3:
            headers["content-encoding"] = "gzip"
            content = gzip.compress(content)
        query = {"atomic": "true"} if random.random() < 0.2 else {}
        return [key for key, _ in made], query, content, headers

    async def _deliver(
        self, keys: list[Key], query: dict[str, str], body: bytes, headers: dict[str, str]
    ) -> None:
        pause_s = 0.1
        while True:
            began = monotonic()
            try:
                response = await self._client.post(
                    "/v1/telemetry", params=query, content=body, headers=headers
                )
            except httpx.TransportError as error:
                self.causes[f"http {type(error).__name__}"] += 1
                wait_s = 0.0
                if isinstance(error, httpx.TimeoutException):
                    self.problems.append(f"no answer in {_TIMEOUT_S:.0f} s: {type(error).__name__}")
            else:
                self.slowest_s = max(self.slowest_s, monotonic() - began)
                if response.is_success:
                    self._check(keys, response)
                    return
                self.causes[f"http {response.status_code}"] += 1
                if response.status_code not in _RETRY:
                    self.problems.append(f"{response.status_code}: {response.text[:300]}")
                    return
                wait_s = self._told(response)
            await asyncio.sleep(max(wait_s, random.uniform(pause_s / 2, pause_s)))
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    def _told(self, response: httpx.Response) -> float:
        """Read how long to wait; the answers that ask to wait must say for how long."""
        after = response.headers.get("retry-after", "")
        if response.status_code in _TELLS_WHEN and not after.isdigit():
            self.problems.append(f"{response.status_code} without Retry-After: {response.text[:300]}")
        elif response.status_code not in _TELLS_WHEN:
            self.problems.append(f"{response.status_code}: {response.text[:300]}")
        return float(after) if after.isdigit() else 0.0

    def _check(self, keys: list[Key], response: httpx.Response) -> None:
        answer: dict[str, Any] = response.json()
        if answer["accepted"] + answer["duplicates"] == len(keys) and not answer.get("rejected"):
            self._ledger.acknowledge(keys)
        else:
            self.problems.append(f"{len(keys)} readings, answered {response.text[:300]}")


class Load:
    """All senders of one ledger, as an async context manager: running inside, drained at the end of it.

    Devices are named after the way they take: h0 and h1 through the services, q through the broker.
    """

    def __init__(
        self, ledger: Ledger, services: list[str], broker: int, *, clients: int, publishers: int
    ) -> None:
        self._clients = [
            Client(services[number % len(services)], f"h{number % len(services)}-{number}", ledger, 0.1)
            for number in range(clients)
        ]
        self._senders: list[Client | Publisher] = [
            *self._clients,
            *(Publisher(broker, f"q-{number}", ledger, 0.02) for number in range(publishers)),
        ]
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def causes(self) -> Counter[str]:
        """Count why senders tried again."""
        return sum((sender.causes for sender in self._senders), Counter[str]())

    @property
    def problems(self) -> list[str]:
        """List what no sender that retries as told may see."""
        return [line for sender in self._senders for line in sender.problems]

    @property
    def slowest_s(self) -> float:
        """Give the longest time to an answer over HTTP."""
        return max((client.slowest_s for client in self._clients), default=0.0)

    async def __aenter__(self) -> Self:
        """Start all senders."""
        self._tasks = [asyncio.create_task(sender.run(self._stop)) for sender in self._senders]
        return self

    async def __aexit__(self, *_: object) -> None:
        """End whatever still runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def drain(self, timeout_s: float) -> bool:
        """Send nothing new; wait until everything sent is acknowledged, False if that took too long."""
        self._stop.set()
        done, pending = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in done:
            task.result()
        return not pending

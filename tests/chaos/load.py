"""The load: HTTP clients that retry as they are told, MQTT publishers that send again what was not taken."""

from __future__ import annotations

import asyncio
import gzip
from collections import Counter
from collections.abc import Iterable
from random import Random
from time import monotonic
from typing import Any, Final, NamedTuple, Self

import httpx
import msgspec

from tests.chaos import poison
from tests.chaos.ledger import Key, Ledger
from tests.chaos.publisher import Publisher

_RETRY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_TELLS_WHEN: Final = frozenset({429, 503})
_REFUSED: Final = 400
# The service gives a dead letter 2 s to be stored before it answers that all was refused.
_KEPT_WITHIN_S: Final = 1.5
_TIMEOUT_S: Final = 20.0
_PAUSE_MAX_S: Final = 1.0


class Post(NamedTuple):
    """A request: its good readings, what is bad in it, and what is sent."""

    keys: list[Key]
    bad: list[bytes]
    query: dict[str, str]
    content: bytes
    headers: dict[str, str]


class Client:
    """Posts batches of its own devices to one address; each again, as it is, until it is taken or refused.

    `problems` lists the answers that a client which retries as told must never get; `causes` counts why it
    had to try again. `slowest_s` is the longest that one try took to be answered.
    """

    def __init__(self, url: str, name: str, ledger: Ledger, pause_s: float, seed: str) -> None:
        self._name = name
        self._ledger = ledger
        self._pause_s = pause_s
        self._random = Random(f"{seed}/{name}")
        self._taken: Key | None = None
        self._client = httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False)
        self.causes: Counter[str] = Counter()
        self.problems: list[str] = []
        self.slowest_s = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Post until `stop` is set; the batch under way is brought to its end."""
        async with self._client:
            while not stop.is_set():
                post = self.compose()
                # Now and then once more after the answer: what is stored must not be stored again.
                for _ in range(2 if self._random.random() < 0.05 else 1):
                    await self._deliver(post)
                await asyncio.sleep(self._pause_s * self._random.uniform(0.5, 1.5))

    def compose(self) -> Post:
        """Make the next request: what it is follows from the seed."""
        draw = self._random
        query = {"atomic": "true"} if draw.random() < 0.2 else {}
        many = 0 if not query and draw.random() < 0.05 else draw.choice([1, 5, 20, 60])
        made = [self._ledger.reading(self._name, draw.choice(["meter", "vehicle"])) for _ in range(many)]
        keys = [key for key, _ in made]
        parts = [msgspec.json.encode(body) for _, body in made]
        is_lines = draw.random() < 0.3
        headers = {"content-type": "application/x-ndjson" if is_lines else "application/json"}
        if not keys and draw.random() < 0.5:
            bad = [poison.unreadable(self._ledger, self._name, draw)]
            content = bad[0]
        else:
            # What all or nothing refuses is not kept.
            poisoned = not query and (not keys or draw.random() < 0.2)
            bad = self._bad(is_lines=is_lines) if poisoned else []
            for raw in bad:
                parts.insert(draw.randrange(len(parts) + 1), raw)
            content = b"\n".join(parts) if is_lines else b"[" + b",".join(parts) + b"]"
        if draw.random() < 0.3:
            headers["content-encoding"] = "gzip"
            content = gzip.compress(content)
        return Post(keys, bad, query, content, headers)

    def _bad(self, *, is_lines: bool) -> list[bytes]:
        draw = self._random
        bad = [
            poison.reading(self._ledger, self._name, draw.choice(["meter", "vehicle"]), draw)
            for _ in range(draw.randint(1, 3))
        ]
        if is_lines:
            bad.append(poison.unreadable(self._ledger, self._name, draw))
        if self._taken is not None:
            bad.append(poison.conflict(self._ledger, self._taken, self._ledger.sent[self._taken]))
            self._taken = None
        return bad

    async def _deliver(self, post: Post) -> None:
        pause_s = 0.1
        while True:
            began = monotonic()
            try:
                response = await self._client.post(
                    "/v1/telemetry", params=post.query, content=post.content, headers=post.headers
                )
            except httpx.TransportError as error:
                self.causes[f"http {type(error).__name__}"] += 1
                wait_s = 0.0
                if isinstance(error, httpx.TimeoutException):
                    self.problems.append(f"no answer in {_TIMEOUT_S:.0f} s: {type(error).__name__}")
            else:
                took_s = monotonic() - began
                self.slowest_s = max(self.slowest_s, took_s)
                if response.is_success:
                    self._check(post, response)
                    return
                if response.status_code == _REFUSED and post.bad and not post.keys:
                    self._note_refusal(post, took_s)
                    return
                self.causes[f"http {response.status_code}"] += 1
                if response.status_code not in _RETRY:
                    self.problems.append(f"{response.status_code}: {response.text[:300]}")
                    return
                wait_s = self._told(response)
            await asyncio.sleep(max(wait_s, self._random.uniform(pause_s / 2, pause_s)))
            pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    def _note_refusal(self, post: Post, took_s: float) -> None:
        """Note a payload that was refused as a whole: kept, unless the database was away or very slow."""
        if took_s < _KEPT_WITHIN_S:
            self._ledger.told.update(dict.fromkeys(post.bad, monotonic()))

    def _told(self, response: httpx.Response) -> float:
        """Read how long to wait; the answers that ask to wait must say for how long."""
        after = response.headers.get("retry-after", "")
        if response.status_code in _TELLS_WHEN and not after.isdigit():
            self.problems.append(f"{response.status_code} without Retry-After: {response.text[:300]}")
        elif response.status_code not in _TELLS_WHEN:
            self.problems.append(f"{response.status_code}: {response.text[:300]}")
        return float(after) if after.isdigit() else 0.0

    def _check(self, post: Post, response: httpx.Response) -> None:
        answer: dict[str, Any] = response.json()
        rejected = sorted(one["code"] for one in answer.get("rejected", ()))
        taken = answer["accepted"] + answer["duplicates"]
        if taken == len(post.keys) and rejected == sorted(self._ledger.bad[raw] for raw in post.bad):
            self._ledger.acknowledge(post.keys)
            self._ledger.refused.update(post.bad)
            self._taken = post.keys[0] if post.keys else None
        else:
            self.problems.append(
                f"{len(post.keys)} readings and {len(post.bad)} bad, answered {response.text[:300]}"
            )


class Load:
    """All senders of one ledger, as an async context manager: running inside, drained at the end of it.

    Devices are named after the way they take: h0 and h1 through the services, q through the broker. For each
    publisher its version of MQTT is given, 5 or 4 (which is 3.1.1); what is sent follows from the seed.
    """

    def __init__(
        self,
        ledger: Ledger,
        services: list[str],
        broker: int,
        *,
        clients: int,
        publishers: Iterable[int],
        seed: str,
    ) -> None:
        self._clients = [
            Client(services[number % len(services)], f"h{number % len(services)}-{number}", ledger, 0.1, seed)
            for number in range(clients)
        ]
        self._senders: list[Client | Publisher] = [
            *self._clients,
            *(
                Publisher(broker, f"q-{number}", ledger, 0.02, seed, version=version)
                for number, version in enumerate(publishers)
            ),
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

"""What a process that sends is told, and how it is told when: see bench/load.py."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime
from typing import Any

from bench import fleet


def readings_of(spec: dict[str, Any]) -> list[fleet.Reading]:
    """Make the readings that a task names."""
    begin = datetime.fromisoformat(spec["begin"]) if "begin" in spec else None
    return fleet.minutes(spec["first"], spec["minutes"], spec["devices"], begin=begin)[: spec.get("limit")]


class Progress:
    """How many readings are committed, as told on standard input."""

    def __init__(self, ahead: int | None) -> None:
        self._ahead = ahead
        self.committed = 0
        self.moved = asyncio.Event()

    async def wait_for(self, sent: int) -> None:
        """Wait until no more than `ahead` readings that were sent are not committed."""
        while self._ahead is not None and sent - self.committed > self._ahead:
            self.moved.clear()
            await self.moved.wait()


async def go(progress: Progress | None = None) -> None:
    """Say that all is made, and wait for the word."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)  # noqa: T201 - that is the protocol
    await reader.readline()
    _made_s.append(time.process_time())

    async def listen() -> None:
        while line := await reader.readline():
            if progress is not None:
                progress.committed = int(line)
                progress.moved.set()

    _listeners.append(asyncio.create_task(listen()))


def cpu_s() -> float:
    """Give the CPU time (s) since the word; what it took to make all that is sent does not count."""
    return time.process_time() - _made_s[0]


_listeners: list[asyncio.Task[None]] = []
_made_s: list[float] = []
